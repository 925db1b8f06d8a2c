"""The task on which the examples of efficient attention are compared."""

from __future__ import annotations

import pytest
import recall
import torch
from torch import Tensor

from transformer import DotProductAttention, MultiHeadAttention

ITEMS, QUESTIONS, BATCH = 7, 5, 11


@pytest.mark.parametrize("first", [False, True])
def test_every_question_has_one_item_at_its_distance_with_its_answer(first: bool) -> None:
    torch.manual_seed(1)
    keys, values, answers, distances = recall.ask(BATCH, ITEMS, QUESTIONS, first=first)
    assert keys.shape == values.shape == answers.shape == distances.shape == (BATCH, ITEMS + QUESTIONS)
    is_question = torch.arange(ITEMS + QUESTIONS) < QUESTIONS
    if not first:
        is_question = is_question.flip(0)
    assert torch.equal(values == 0, is_question.expand(BATCH, -1))
    for row in range(BATCH):
        items = {int(keys[row, i]): i for i in range(ITEMS + QUESTIONS) if not is_question[i]}
        assert len(items) == ITEMS
        for question in is_question.nonzero().flatten().tolist():
            item = items[int(keys[row, question])]
            assert int(answers[row, question]) == int(values[row, item]) - 1
            assert int(distances[row, question]) == abs(question - item)
    assert int(answers.max()) < recall.NUM_VALUES and int(keys.max()) < recall.num_keys(ITEMS)


def test_items_are_asked_for_in_any_order() -> None:
    torch.manual_seed(1)
    distances = recall.ask(313, ITEMS, 1).distances[:, -1]
    assert set(distances.tolist()) == set(range(1, ITEMS + 1))


class Oracle(recall.Recall):
    """Looks the answer up, in every question but the first."""

    def forward(self, questions: recall.Questions, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        right = questions.answers.clamp(min=0)
        right[:, ITEMS] = (right[:, ITEMS] + 1) % recall.NUM_VALUES
        return torch.nn.functional.one_hot(right, recall.NUM_VALUES).float()


def test_answers_are_counted_by_question() -> None:
    model = Oracle([], ITEMS, 3)
    correct, distances = recall.answered(model, batches=2, batch=BATCH, num_items=ITEMS, num_questions=QUESTIONS)
    assert correct.view(-1, QUESTIONS).tolist() == [[0, 1, 1, 1, 1]] * 2 * BATCH
    assert correct.shape == distances.shape and int(distances.min()) >= 1


def test_the_order_of_items_and_questions_does_not_matter_to_full_attention() -> None:
    torch.manual_seed(1)
    model = recall.Recall([MultiHeadAttention(12, 3, attention=DotProductAttention())], ITEMS, 12)
    questions = recall.ask(BATCH, ITEMS, QUESTIONS)
    order = torch.randperm(ITEMS + QUESTIONS)
    shuffled = recall.Questions(*(column[:, order] for column in questions))
    torch.testing.assert_close(model(shuffled), model(questions)[:, order])


def test_a_layer_of_full_attention_learns_to_answer() -> None:
    torch.manual_seed(1)
    model = recall.Recall([MultiHeadAttention(32, 2)], ITEMS, 32)
    task = {"batch": 32, "num_items": ITEMS, "num_questions": ITEMS}
    before = recall.answered(model, **task)[0].mean()
    recall.train(model, 211, lr=6e-3, **task)
    assert before < 0.2 and recall.answered(model, **task)[0].mean() > 0.95
