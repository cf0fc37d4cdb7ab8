"""The settings of every analysis: frozen, free of torch (so that --help is quick), with presets for three budgets.

Each family of analyses declares its own in a module beside this one; everybody else takes them from here.
"""

from analyses.bandit_configs import (
    BANDIT_ANALYSES,
    AlgorithmZoo,
    BanditSettings,
    BehaviouralBattery,
    ImitationSettings,
    InContextImprovement,
    PretrainingDiversity,
    TwinTest,
)
from analyses.control_configs import (
    CONTROL_ANALYSES,
    AcrossEpisodes,
    ActionObjective,
    ControlBattery,
    ControlSettings,
    ControlZoo,
    PolicyProbes,
    ValueVsPolicy,
)
from analyses.planted_configs import (
    PLANTED_ANALYSES,
    CausalTests,
    Constructions,
    ContextLength,
    ModelRecovery,
    RegressionRecovery,
)
from analyses.presets import Analysis, Preset
from analyses.regression_configs import (
    REGRESSION_ANALYSES,
    LayersVsIterations,
    LossVsContext,
    LossVsDepth,
    PoolBayesOrRidge,
    PreconditionedGDEmergence,
    RegressionSettings,
    SingleLayerOptimum,
)
from analyses.value_configs import (
    VALUE_ANALYSES,
    Activation,
    Architecture,
    BeyondLinear,
    CartPole,
    Component,
    EffectiveDiscount,
    LayerRoles,
    Objective,
    RNNControl,
    SubjectSettings,
    Task,
    TaskDiversity,
    TDEmergence,
    TDProbe,
)

__all__ = [
    "ANALYSES",
    "AcrossEpisodes",
    "ActionObjective",
    "Activation",
    "AlgorithmZoo",
    "Analysis",
    "Architecture",
    "BanditSettings",
    "BehaviouralBattery",
    "BeyondLinear",
    "CartPole",
    "CausalTests",
    "Component",
    "Constructions",
    "ContextLength",
    "ControlBattery",
    "ControlSettings",
    "ControlZoo",
    "EffectiveDiscount",
    "ImitationSettings",
    "InContextImprovement",
    "LayerRoles",
    "LayersVsIterations",
    "LossVsContext",
    "LossVsDepth",
    "ModelRecovery",
    "Objective",
    "PolicyProbes",
    "PoolBayesOrRidge",
    "PreconditionedGDEmergence",
    "Preset",
    "PretrainingDiversity",
    "RNNControl",
    "RegressionRecovery",
    "RegressionSettings",
    "SingleLayerOptimum",
    "SubjectSettings",
    "TDEmergence",
    "TDProbe",
    "Task",
    "TaskDiversity",
    "TwinTest",
    "ValueVsPolicy",
]

ANALYSES = VALUE_ANALYSES | PLANTED_ANALYSES | REGRESSION_ANALYSES | BANDIT_ANALYSES | CONTROL_ANALYSES
