"""STRATEGIES: name to strategy class, built by `Strategy(settings: StrategySection)`."""

from common.registry import Registry

STRATEGIES = Registry(
    "strategy",
    {
        "fedavg": "server.strategies.fedavg:FedAvg",
        "fedprox": "server.strategies.fedprox:FedProx",
        "fedadam": "server.strategies.fedopt:FedAdam",
        "fedyogi": "server.strategies.fedopt:FedYogi",
        "fedadagrad": "server.strategies.fedopt:FedAdagrad",
        "fedexp": "server.strategies.fedexp:FedExp",
        "scaffold": "server.strategies.scaffold:Scaffold",
        "fednova": "server.strategies.fednova:FedNova",
        "feddyn": "server.strategies.feddyn:FedDyn",
        "qffl": "server.strategies.qffl:QFfl",
        "afl": "server.strategies.afl:Afl",
        "group-dro": "server.strategies.group_dro:GroupDro",
        "harmofl": "server.strategies.harmofl:HarmoFl",
        "moon": "server.strategies.moon:Moon",
        "fedproto": "server.strategies.fedproto:FedProto",
        "fedsr": "server.strategies.fedsr:FedSr",
        "fedbn": "server.strategies.fedbn:FedBn",
        "silobn": "server.strategies.silobn:SiloBn",
        "fedper": "server.strategies.fedper:FedPer",
        "fedrep": "server.strategies.fedrep:FedRep",
        "ditto": "server.strategies.ditto:Ditto",
        "mr-mtl": "server.strategies.mr_mtl:MrMtl",
        "apfl": "server.strategies.apfl:Apfl",
        "fedattnnorm": "server.strategies.fedattnnorm:FedAttnNorm",
    },
)
