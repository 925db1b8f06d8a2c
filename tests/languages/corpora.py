"""Parallel corpora of a toy grammar: English with each of several languages, written as these are written.

Five slots (time, subject, verb, number, object) and an end of sentence are filled with fixed phrases, so a translation
is right or wrong. The phrases have what normalisation and tokenisation may lose: full-width forms, digits of each
script, quotation marks, joiners and non-joiners, combining marks, precomposed and decomposed letters.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

SIZES = {"train": 1500, "validation": 60, "test": 100}
TIMES = ["today", "every day", "at home"]
SUBJECTS = ["the cat", "my father", "a teacher", "our doctor", "her friend", "the boys"]
VERBS = ["sees", "buys", "finds", "wants", "sells"]
NUMBERS = ["3", "10", "2,500"]
OBJECTS = ["books", "cups of water", "old maps", "new houses", "small boats"]
ENDS = [".", "?", "!"]


@dataclass(frozen=True)
class Language:
    """The phrases of the target, in the order of the English ones; `ends` surround the sentence."""

    order: str  # a pattern with the names of the slots
    times: str  # phrases are separated by |
    subjects: str
    verbs: str
    numbers: str
    objects: str
    ends: tuple[str, str, str] = ("{}.", "{}?", "{}!")

    def slots(self) -> dict[str, list[str]]:
        names = ("times", "subjects", "verbs", "numbers", "objects")
        return {name[:-1]: getattr(self, name).split("|") for name in names}


LANGUAGES = {
    "zh": Language(
        "{time}，{subject}{verb}{number}{object}",
        "今天|每天|在家里",
        "猫|我的父亲|一位“老师”|我们的医生|她的朋友|男孩们",
        "看见|购买|找到|想要|出售",
        "３|１０|２，５００",
        "本《书》|杯水（冷）|张旧地图|座新房子|条小船",
        ("{}。", "{}吗？", "{}！"),
    ),
    "ja": Language(
        "{time}、{subject}は{object}を{number}{verb}",
        "今日|毎日|家で",
        "ネコ|私の父|「先生」|私たちのドクター|彼女の友だち|男の子たち",
        "見ます|買います|見つけます|欲しがります|売ります",
        "３つ|１０個|２，５００個",
        "本|コーヒー・カップの水|古い地図|新しい家〜|小さなﾎﾞｰﾄ",
        ("{}。", "{}か？", "{}！"),
    ),
    "ko": Language(
        "{time}, {subject} {object} {number}개를 {verb}",
        "오늘|매일|집에서",
        "고양이가|제 아버지가|‘선생님’이|우리 의사가|그녀의 친구가|소년들이",
        "봅니다|삽니다|찾습니다|원합니다|팝니다",
        "3|10|2,500",
        "책|물컵|옛 지도|새 집|작은 배",
    ),
    "th": Language(
        "{time} {subject}{verb}{object} {number} อย่าง",
        "วันนี้|ทุกๆ วัน|ที่บ้าน",
        "แมว|พ่อของฉัน|ครู|หมอของเรา|เพื่อนของเธอ|เด็กผู้ชาย",
        "เห็น|ซื้อ|พบ|ต้องการ|ขาย",
        "๓|๑๐|๒,๕๐๐",
        "หนังสือ|น้ำเป็นแก้วๆ|แผนที่เก่า|บ้านใหม่|เรือลำเล็ก",
        ("{}", "{}ไหม", "{}!"),
    ),
    "fa": Language(
        "{time}، {subject} {number} {object} را {verb}",
        "امروز|هر روز|در خانه",
        "گربه|پدرم|«آموزگار»|پزشکِ ما|دوستش|پسرها",
        "می‌بیند|می‌خرد|می‌یابد|می‌خواهد|می‌فروشد",
        "۳|۱۰|۲٬۵۰۰",
        "کتاب‌ها|لیوان‌های آب|نقشه‌های قدیمی|خانه‌های نو|قایق‌های کوچک",
        ("{}.", "آیا {}؟", "{}!"),
    ),
    "ar": Language(
        "{time}، {verb} {subject} {number} {object}",
        "اليَوْمَ|كُلَّ يَوْمٍ|في البَيْتِ",
        "القِطُّ|أَبي|مُعَلِّمٌ|طَبيبُنا|صَديقُها|الأَوْلادُ",
        "يَرى|يَشْتَري|يَجِدُ|يُريدُ|يَبيعُ",
        "٣|١٠|٢٬٥٠٠",
        "كُتُبٍ|أَكْوابِ ماءٍ|خَرائِطَ قَديمَةٍ|بُيوتٍ جَديدَةٍ|قَوارِبَ صَغيرَةٍ",
        ("{}.", "هَلْ {}؟", "{}!"),
    ),
    "hi": Language(
        "{time} {subject} {number} {object} {verb}",
        "आज|हर दिन|घर पर",
        "बिल्ली|मेरे पिता|शिक्‍षक|हमारे डॉक्टर|उसका दोस्त|लड़के",
        "देखता है|\u0959रीदता है|ढूँ\u095dता है|चाहता है|बेचता है",  # letters with a nukta, which NFKC takes apart
        "३|१०|२,५००",
        "किताबें|पानी के गिलास|पुराने नक़्शे|नए मकान|छोटी नावें",
        ("{}।", "क्या {}?", "{}!"),
    ),
    "ru": Language(
        "{time} {subject} {verb} {number} {object}",
        "сегодня|ка́ждый день|дома —",
        "кот|мой отец|«учитель»|наш врач|её друг|мальчики",
        "видит|покупает|находит|хочет|продаёт",
        "№ 3|10|2\u00a0500",
        "книг|стаканов воды|старых карт|новых домов|маленьких лодок",
    ),
}


def pairs(language: str, seed: int = 1) -> list[tuple[str, str]]:
    """All sentences with their translations, shuffled."""
    english = {"time": TIMES, "subject": SUBJECTS, "verb": VERBS, "number": NUMBERS, "object": OBJECTS}
    names, target = list(english), LANGUAGES[language]
    both = [list(zip(english[name], phrases, strict=True)) for name, phrases in target.slots().items()]
    found = []
    for *phrases, (end, target_end) in itertools.product(*both, zip(ENDS, target.ends, strict=True)):
        source, translation = ({name: p[i] for name, p in zip(names, phrases, strict=True)} for i in (0, 1))
        sentence = "{time}, {subject} {verb} {number} {object}".format(**source) + end
        found.append((sentence, target_end.format(target.order.format(**translation))))
    random.Random(seed).shuffle(found)
    return found


def write_corpus(directory: Path, language: str) -> str:
    """Write the splits, disjoint, as a sentence per line; returns their pattern."""
    rest = iter(pairs(language))
    for split, size in SIZES.items():
        for lang, sentences in zip(("en", language), zip(*itertools.islice(rest, size), strict=True), strict=True):
            lines = "".join(f"{sentence}\n" for sentence in sentences)
            (directory / f"{split}.{lang}").write_text(lines, encoding="utf-8")
    return f"{directory}/{{split}}.{{lang}}"
