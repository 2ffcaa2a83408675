"""Finds the ids of the language tokens of multilingual models, by their codes.

mBART and NLLB have these ids in tokenizer.json. Where this file is absent, and always in M2M-100,
no file has them. They then follow the vocabulary in the order in which fairseq lists the codes.
"""

from __future__ import annotations

import os
import re

from checkpoint_reader import Settings, is_integer, refuse
from sentencepiece_reader import count_pieces

# These are the codes of M2M-100. The token of code xx is written __xx__.
M2M_100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha
he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my
ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz
vi wo xh yi yo zh zu
""".split()

# These are the codes of the models for WMT 21, which are M2M-100 otherwise.
WMT_21 = "en ha is ja cs ru zh de".split()
# tokenizer_config.json calls the lists of M2M-100 so.
M2M_LISTS = {"m2m100": M2M_100, "wmt21": WMT_21}

# These are the codes of the first mBART, which has 25 languages.
MBART = """
ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT
lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
""".split()

# These are the codes of mBART-50.
MBART_50 = """
ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT
lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN af_ZA az_AZ bn_IN fa_IR he_IL
hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN te_IN
th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
""".split()

# These are the codes of NLLB-200, as its tokenizer.json has them.
NLLB = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab
arb_Arab ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn
bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt
bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn
dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn
ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn
gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn
hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn
kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn
kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kon_Latn kor_Hang kmr_Latn lao_Laoo
lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn
luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn
mni_Beng khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva
nso_Latn nus_Latn nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn
por_Latn prs_Arab pbt_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng
scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn
spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml
tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn
tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab
uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans
zho_Hant zul_Latn
""".split()


def read_codes(settings):
    """Returns the codes of M2M-100's languages in the order of their ids. `settings` are those of
    tokenizer_config.json, or None."""
    if settings is None:
        return M2M_100
    expected = f"one of {', '.join(M2M_LISTS)}"
    return M2M_LISTS[
        settings.take("language_codes", "m2m100", expected, lambda v: v in list(M2M_LISTS))
    ]


def list_added(path):
    """Yields the text and the id of each added token of a tokenizer.json."""
    for token in Settings(path).take("added_tokens", [], "a list", lambda v: isinstance(v, list)):
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            if is_integer(token.get("id")):
                yield token["content"], token["id"]


def read_languages(tokenizer, model_type, rows):
    """Returns the ids of the language tokens by code, for a model that reads and writes ids. They
    must be below `rows`, the number of rows of the target embedding. The result is empty if the
    family has no languages. `tokenizer` is a Tokenizer (tokenizer_reader.py)."""
    directory, path = tokenizer.path(""), tokenizer.path
    if model_type not in ("m2m_100", "mbart"):
        return {}
    tokenizer_class = tokenizer.get("tokenizer_class")
    tokenizer_class = tokenizer_class if isinstance(tokenizer_class, str) else ""
    nllb = model_type == "m2m_100" and re.match("Nllb", tokenizer_class)
    if model_type == "m2m_100" and not nllb:
        first = len(Settings(path("vocab.json")).values)
        codes = read_codes(tokenizer.settings)
    else:
        codes = NLLB if nllb else MBART_50 if "50" in tokenizer_class else MBART
        if os.path.exists(path("tokenizer.json")):
            found = dict(list_added(path("tokenizer.json")))
            languages = {code: found[code] for code in codes if code in found}
            if languages:
                return check(path("tokenizer.json"), languages, rows)
        # An id is larger by one than in the SentencePiece model, because fairseq has one more token
        # before the pieces.
        first = count_pieces(path("sentencepiece.bpe.model")) + 1
    return check(directory, {code: first + i for i, code in enumerate(codes)}, rows)


def check(path, languages, rows):
    """Refuses an id that the embedding has no row for. Returns the languages."""
    for code, number in languages.items():
        if not 0 <= number < rows:
            refuse(path, code, f"an id below the embedding's {rows} rows", number)
    return languages
