"""ADAPTATIONS: name to method of test-time adaptation, built by `build_adaptation(name, model, source, values)`."""

from common.registry import Registry

_HERE = "client.adaptation."
ADAPTATIONS = Registry(
    "adaptation",
    {
        "none": _HERE + "none:Unchanged",
        "bn-adapt": _HERE + "bn_adapt:BnAdapt",
        "tent": _HERE + "tent:Tent",
        "shot-im": _HERE + "shot_im:ShotIm",
        "t3a": _HERE + "t3a:T3a",
        "memo": _HERE + "memo:Memo",
        "eata": _HERE + "eata:Eata",
        "sar": _HERE + "sar:Sar",
        "cotta": _HERE + "cotta:Cotta",
        "rotta": _HERE + "rotta:Rotta",
        "delta": _HERE + "delta:Delta",
        "lame": _HERE + "lame:Lame",
        "foa": _HERE + "foa:Foa",
        "fr": _HERE + "fr:FeatureRestoration",
        "bufr": _HERE + "fr:BottomUpRestoration",
        "actmad": _HERE + "actmad:Actmad",
        "fasa": _HERE + "fasa.method:Fasa",
    },
)
