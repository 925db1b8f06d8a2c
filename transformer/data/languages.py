"""Languages by their codes: of ISO 639-1, as most programs know them, and of ISO 639-3, as OPUS-MT names them."""

UNKNOWN_LANGUAGE = "und"  # undetermined, by ISO 639-2
# The codes of OPUS-MT's models are those of ISO 639-3, some of them of the language that is meant by a group's.
_LANGUAGES = """
af afr Afrikaans, am amh Amharic, ar ara/arb Arabic, az aze Azerbaijani, be bel Belarusian, bg bul Bulgarian,
bn ben Bengali, bs bos Bosnian, ca cat Catalan, cs ces Czech, cy cym Welsh, da dan Danish, de deu German, el ell Greek,
en eng English, eo epo Esperanto, es spa Spanish, et est/ekk Estonian, eu eus Basque, fa fas/pes Persian,
fi fin Finnish, fo fao Faroese, fr fra French, ga gle Irish, gd gla Scottish Gaelic, gl glg Galician, gu guj Gujarati,
ha hau Hausa, he heb Hebrew, hi hin Hindi, hr hrv Croatian, hu hun Hungarian, hy hye Armenian, id ind Indonesian,
ig ibo Igbo, is isl Icelandic, it ita Italian, ja jpn Japanese, jv jav Javanese, ka kat Georgian, kk kaz Kazakh,
km khm Khmer, kn kan Kannada, ko kor Korean, ky kir Kyrgyz, la lat Latin, lb ltz Luxembourgish, lo lao Lao,
lt lit Lithuanian, lv lav/lvs Latvian, mg mlg Malagasy, mi mri Maori, mk mkd Macedonian, ml mal Malayalam,
mn mon Mongolian, mr mar Marathi, ms msa/zsm Malay, mt mlt Maltese, my mya Burmese, nb nob Norwegian Bokmål,
ne nep Nepali, nl nld Dutch, nn nno Norwegian Nynorsk, no nor Norwegian, oc oci Occitan, om orm Oromo, or ori Odia,
pa pan Punjabi, pl pol Polish, ps pus Pashto, pt por Portuguese, qu que Quechua, rn run Rundi, ro ron Romanian,
ru rus Russian, rw kin Kinyarwanda, sd snd Sindhi, se sme Northern Sami, si sin Sinhala, sk slk Slovak,
sl slv Slovenian, so som Somali, sq sqi Albanian, sr srp Serbian, st sot Southern Sotho, su sun Sundanese,
sv swe Swedish, sw swa/swh Swahili, ta tam Tamil, te tel Telugu, tg tgk Tajik, th tha Thai, tk tuk Turkmen,
tl tgl Tagalog, tn tsn Tswana, tr tur Turkish, ts tso Tsonga, tt tat Tatar, ug uig Uyghur, uk ukr Ukrainian,
ur urd Urdu, uz uzb Uzbek, vi vie Vietnamese, wo wol Wolof, xh xho Xhosa, yi yid Yiddish, yo yor Yoruba,
zh zho/cmn Chinese, zu zul Zulu, mul mul several languages, und und an unknown language
"""
_ENTRIES = [entry.strip().split(" ", maxsplit=2) for entry in _LANGUAGES.split(",")]
_NAME_OF = {short: name for short, _, name in _ENTRIES}
_SHORT_OF = {code: short for short, codes, _ in _ENTRIES for code in codes.split("/")}


def short_code(code: str) -> str:
    """The code by ISO 639-1, where the language has one, and a hyphen: `pt-BR` for `por_BR`, `de` for `deu`."""
    base, _, region = code.replace("_", "-").partition("-")
    base = _SHORT_OF.get(base.lower(), base)
    return f"{base}-{region}" if region else base


def is_same_language(one: str, other: str) -> bool:
    """Whether two codes are of one language and region, in whichever form: `de` and `deu`, `pt_BR` and `por-BR`."""
    return short_code(one).lower() == short_code(other).lower()


def language_name(code: str) -> str:
    """The English name of a language, with its region in brackets, as `Portuguese (BR)`; else the code."""
    base, _, region = short_code(code).partition("-")
    name = _NAME_OF.get(base.lower())
    if name is None:
        return code
    return f"{name} ({region})" if region else name
