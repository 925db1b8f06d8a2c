"""What somebody may have meant by a key that does not exist."""

import difflib
from collections.abc import Iterable, Sequence

# Names in fairseq, OpenNMT-py, JoeyNMT, Marian, Sockeye, tensor2tensor and Hugging Face's libraries, in lower case, for
# a key, several keys, or an explanation.
_ELSEWHERE = {
    "train.init_from": "finetune_from_model finetune_from pretrained_model pretrained init_checkpoint init_model "
    "initialize_from warm_start model_name_or_path params from_pretrained",
    "train.freeze": "freeze_encoder freeze_decoder freeze_embeddings freeze_layers freeze_word_vecs_enc "
    "freeze_word_vecs_dec fixed_param_names fixed_param_strategy embedding_fix_src embedding_fix_trg frozen",
    "train.max_tokens or train.tokens_per_update": "batch_size mini_batch batch_type update_freq accum_count "
    "batch_multiplier optimizer_delay gradient_accumulation_steps per_device_train_batch_size train_batch_size "
    "mini_batch_words",
    "train.max_tokens": "per_device_eval_batch_size eval_batch_size valid_batch_size max_tokens_valid "
    "max_tokens_per_batch batch_tokens",
    "train.learning_rate or train.lr_factor": "lr init_lr peak_lr max_lr initial_learning_rate base_lr",
    "train.lr_factor": "learning_rate_factor",
    "train.min_learning_rate": "min_lr end_learning_rate lr_min eta_min final_lr learning_rate_min stop_min_lr "
    "lr_end end_lr",
    "train.decay_steps": "total_num_update total_num_updates lr_period_updates lr_decay_steps num_training_steps "
    "decay_end",
    "train.schedule": "lr_scheduler lr_scheduler_type scheduler scheduling decay_method learning_rate_decay_scheme "
    "learning_rate_schedule lr_schedule lr_decay lr_decay_strategy learning_rate_scheduler_type",
    "train.ema_decay": "ema exponential_smoothing moving_average moving_average_decay average_decay model_ema "
    "store_ema ema_start_update use_ema",
    "train.best_by": "metric_for_best_model best_checkpoint_metric early_stopping_metric optimized_metric "
    "eval_metric_for_best",
    "data.also_validate": "valid_subset eval_datasets extra_validation_sets valid_subsets",
    "train.warmup_steps": "warmup warmup_updates warmup_init_lr lr_warmup learning_rate_warmup "
    "learning_rate_warmup_steps num_warmup_steps n_warmup_steps warmup_ratio",
    "train.max_steps": "epochs epoch max_epoch max_epochs num_epochs num_train_epochs n_epochs after after_epochs "
    "after_batches max_update max_updates train_steps num_steps max_iterations total_steps steps updates",
    "train.clip_norm": "max_grad_norm clip_grad_norm gradient_clipping grad_clip clip gradient_clip_val",
    "train.adam_beta1": "beta1 adam_b1",
    "train.adam_beta2": "beta2 adam_b2",
    "train.adam_beta1 or train.adam_beta2": "betas adam_betas optimizer_params",
    "train.adam_eps": "eps epsilon adam_epsilon optimizer_epsilon",
    "train.label_smoothing": "smoothing label_smoothing_factor loss_label_smoothing eps_ls",
    "train.validate_steps": "valid_steps valid_freq validation_freq validate_interval validate_interval_updates "
    "eval_steps eval_interval checkpoint_interval eval_frequency",
    "train.log_steps": "log_interval log_freq logging_freq logging_steps report_every disp_freq print_every",
    "train.save_steps": "save_freq save_interval save_interval_updates save_checkpoint_steps",
    "train.keep_checkpoints": "keep_checkpoint keep_best_ckpts keep_last_epochs keep_interval_updates "
    "save_total_limit keep_last_params keep_last",
    "train.patience": "early_stopping early_stopping_patience max_num_checkpoint_not_improved",
    "train.precision": "fp16 bf16 half amp mixed_precision dtype model_dtype tf32 allow_tf32",
    "train.gradient_checkpointing": "checkpoint_activations activation_checkpointing gradient_checkpoint recompute "
    "use_gradient_checkpointing",
    "train.packed": "packing use_packing sequence_packing packed_batches group_by_length padding_free remove_padding "
    "use_flash_attention flash_attention",
    "train.compile": "torch_compile compile_model use_compile torch_compile_backend",
    "the loss scale of fp16 adapts by itself": "fp16_init_scale fp16_scale_window loss_scale cost_scaling "
    "amp_loss_scale dynamic_loss_scale init_scale min_loss_scale",
    "train.device": "use_cuda use_gpu gpu gpus cpu no_cuda gpu_ranks devices device_ids",
    "train.deterministic": "cudnn_deterministic full_determinism deterministic_algorithms use_deterministic_algorithms "
    "torch_deterministic cudnn_benchmark",
    "train.num_threads": "cpu_threads threads num_workers workers",
    "train.validation_bleu": "eval_bleu valid_metrics eval_metric eval_metrics metrics",
    "model.d_model": "hidden_size hidden_dim embed_dim embedding_dim encoder_embed_dim decoder_embed_dim emb_dim "
    "dim_emb dim model_dim model_size transformer_model_size word_vec_size n_embd d_embed emb_size rnn_size dim_model",
    "model.d_ff": "ffn_dim ff_size ff_dim d_inner dim_feedforward feed_forward_dim intermediate_size "
    "filter_size transformer_ff transformer_dim_ffn encoder_ffn_embed_dim decoder_ffn_embed_dim encoder_ffn_dim "
    "decoder_ffn_dim transformer_feed_forward_num_hidden dim_ff mlp_dim",
    "model.num_heads": "heads n_heads n_head nhead attention_heads num_attention_heads transformer_heads "
    "encoder_attention_heads decoder_attention_heads transformer_attention_heads h",
    "model.num_kv_heads": "num_key_value_heads n_kv_heads kv_heads",
    "model.num_layers": "layers n_layers n_layer encoder_layers enc_layers enc_depth num_encoder_layers "
    "num_hidden_layers hidden_layers num_blocks depth",
    "model.num_decoder_layers": "decoder_layers dec_layers dec_depth",
    "model.dropout": "dropout_rate dropout_prob p_drop transformer_dropout hidden_dropout resid_pdrop "
    "hidden_dropout_prob residual_dropout emb_dropout dropout_p",
    "model.attention_dropout": "attn_dropout attn_pdrop attention_probs_dropout_prob transformer_dropout_attention",
    "model.activation_dropout": "relu_dropout ffn_dropout ff_dropout transformer_dropout_ffn",
    "model.norm": "layer_norm pre_norm prenorm normalize_before encoder_normalize_before decoder_normalize_before "
    "norm_first transformer_preprocess transformer_postprocess",
    "model.norm_eps": "layer_norm_eps layer_norm_epsilon",
    "model.positional": "position_encoding positional_encoding pos_enc position_embedding_type "
    "learned_pos encoder_learned_pos relative_positions",
    "model.activation": "activation_fn hidden_act activation_function pos_ffn_activation_fn transformer_ffn_activation",
    "model.tie": "tied_embeddings tied_embeddings_all tie_embeddings tied_softmax weight_tying share_embeddings "
    "share_all_embeddings share_decoder_input_output_embed tie_word_embeddings share_decoder_embeddings",
    "data.src_lang": "source_lang source_language src lang_src source",
    "data.tgt_lang": "target_lang target_language tgt trg lang_tgt target",
    "data.corpus": "dataset dataset_name data_path data_dir train_file train_sets train_data path_src path_tgt",
    "data.corpora": "train_corpora train_sources datasets data_sources corpus_weights sampling_weights "
    "upsample_primary data_weighting",
    "data.tag": "lang_tok src_prefix source_prefix prefix target_prefix add_source_token lang_tag encoder_langtok",
    "data.filters": "filter filtering cleaning clean",
    "data.deduplicate": "dedup dedupe unique remove_duplicates",
    "data.validation_size": "test_size val_size valid_size validation_split_percentage eval_size dev_size",
    "data.hold_out": "holdout held_out train_test_split auto_split split_ratio",
    "data.train_split": "trainpref train_set",
    "data.validation_split": "valid dev val validation validpref valid_sets valid_set dev_set",
    "data.test_split": "test testpref test_set",
    "data.vocab_size": "tgt_vocab_size voc_limit dim_vocabs vocab vocab_limit num_merges bpe_size",
    "data.source_vocab_size": "src_vocab_size source_vocab",
    "data.separate_vocabularies": "joint_vocab joined_dictionary share_vocab shared_vocab shared_vocabs "
    "share_embeddings_vocab separate_vocabs",
    "data.tokenizer": "spm_model sentencepiece_model tokenizer_name tokenizer_file tokenizer_path bpe_codes "
    "src_subword_model tgt_subword_model subword_model srcdict tgtdict vocabs",
    "data.tokenizer_type": "subword_type src_subword_type tgt_subword_type bpe",
    "data.user_symbols": "user_defined_symbols special_tokens additional_special_tokens special_symbols",
    "data.subword_dropout": "bpe_dropout dropout_bpe merge_dropout src_subword_alpha tgt_subword_alpha",
    "data.subword_alpha": "sentencepiece_alphas subword_sampling sampling_alpha sentencepiece_sampling nbest_alpha",
    "data.max_length": "max_len max_seq_len max_seq_length max_sent_length src_seq_length tgt_seq_length "
    "max_source_positions max_target_positions",
    "run_dir": "save_dir output_dir model_dir checkpoint_dir save_model out_dir log_dir logdir tensorboard_logdir",
    "seed": "random_seed manual_seed",
    "search.beam": "beam_size num_beams beam_width",
    "search.alpha": "lenpen len_pen beam_alpha length_normalization length_penalty_alpha normalize",
    "search.max_length_offset": "max_len_a max_len_b decode_length",
    "search.max_length": "max_new_tokens max_output_length",
    "search.min_length": "min_len min_new_tokens min_output_length min_decoding_length",
    "search.no_repeat_ngram": "no_repeat_ngram_size block_ngram_repeat",
    "search.allow_unknown": "allow_unk generate_unk use_unk disable_unk unkpen",
    "the optimizer is always Adam; the key schedule of section train sets its learning rate": "optimizer optim "
    "optimizer_type",
    "a run resumes from its last checkpoint by itself; init_from begins a new one": "load_model train_from resume "
    "resume_from_checkpoint restore_file reload",
}
_KEYS = {name: keys for keys, names in _ELSEWHERE.items() for name in names.split()}
# Likeness from which a name is taken for a misspelling, within the section that is named and anywhere.
_HERE, _ANYWHERE = 0.7, 0.8


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that does not exist, with what may be meant."""
    known = list(known)
    return f"unknown key {key}; {_hint(key, known)}"


def near_miss(word: str, known: Iterable[str]) -> str:
    """`; did you mean WORD?` for a misspelt word, else nothing."""
    nearest = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=_HERE)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def unknown_option(argument: str, known: Iterable[str]) -> str:
    """The message for a key that is written as an option, such as `--train.max_steps=3`, or `--batch-size`."""
    option, _, value = argument.partition("=")
    key, known = option.lstrip("-"), list(known)
    if key in known:
        return f"unknown argument {argument}; keys have no dashes: {key}={value or 'VALUE'}"
    hint = _hint(key, known)
    return f"unknown argument {argument}; {hint if hint.startswith('did you') else '--help lists the arguments'}"


def _hint(key: str, known: list[str]) -> str:
    section, _, name = key.lower().replace("-", "_").rpartition(".")
    names = [other.rpartition(".")[2] for other in known]
    if name in names:  # in another section, or in none
        return f"did you mean {known[names.index(name)]}?"
    sections = sorted({other.partition(".")[0] for other in known if "." in other})
    if not section and (meant := _nearest(name, sections, _HERE)):
        return f"did you mean the section {meant}?"
    if name in _KEYS:
        meaning = _KEYS[name]
        return f"did you mean {meaning}?" if {*meaning.split(" or ")} & {*known} else meaning
    meant = _nearest(section, sections, 0.6)
    here = [other for other in known if other.rpartition(".")[0] == meant]
    found = _similar(name, here, _HERE) or _similar(name, known, _ANYWHERE)
    if found:
        return f"did you mean {found}?"
    return f"keys of {meant}: {', '.join(here)}" if meant else f"known keys: {', '.join(known)}"


def _similar(name: str, keys: Sequence[str], likeness: float) -> str:
    """The key with a name that continues this one, is continued by it, or is spelt alike."""
    by_name = {key.rpartition(".")[2]: key for key in keys}
    longer = [other for other in by_name if other.startswith(f"{name}_") or name.startswith(f"{other}_")]
    return by_name.get(longer[0] if longer else _nearest(name, list(by_name), likeness), "")


def _nearest(word: str, known: Sequence[str], likeness: float) -> str:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=likeness)), "")
