"""config.json: read back as written, and every mistake named with the nearest choice."""

import json
from typing import Any

import pytest

from models.config import ConfigError, LinearTransformerConfig, Mask

MINIMAL = {"model": "linear-transformer", "n_layers": 3, "looped": True, "d_features": 4, "activation": "linear"}
FULL = LinearTransformerConfig(
    n_layers=5,
    looped=False,
    d_features=2,
    activation="softmax",
    gamma=0.5,
    discounted=False,
    memory=True,
    masks=(Mask("centred"), Mask("query", 0.25)),
    readout_sign=1,
)


@pytest.mark.parametrize("config", [FULL, LinearTransformerConfig.from_json(MINIMAL)], ids=["full", "minimal"])
def test_json_goes_there_and_back(config: LinearTransformerConfig) -> None:
    assert LinearTransformerConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_optional_keys_have_the_papers_defaults() -> None:
    config = LinearTransformerConfig.from_json(MINIMAL)
    assert config.to_json() == {
        **MINIMAL,
        "gamma": 0.9,
        "prompt": {"discounted": True, "memory": False},
        "masks": [{"kind": "query", "lambda": 0.0}],
        "readout_sign": -1,
    }


def test_keys_of_somebody_else_are_left_alone() -> None:
    assert LinearTransformerConfig.from_json({**MINIMAL, "comment": "trained in May"}).n_layers == 3


def test_an_undiscounted_prompt_needs_no_discount() -> None:
    assert LinearTransformerConfig.from_json({**MINIMAL, "gamma": 0, "prompt": {"discounted": False}}).gamma == 0


def test_width_and_weight_layers() -> None:
    assert (FULL.width, FULL.n_weight_layers) == (6, 5)
    minimal = LinearTransformerConfig.from_json(MINIMAL)
    assert (minimal.width, minimal.n_weight_layers) == (9, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "sofmax"}, "activation is 'sofmax'; did you mean 'softmax'.*linear, relu, softmax"),
        ({"activation": None}, "activation is None; allowed: linear, relu"),
        ({"model": "linear-transfomer"}, "did you mean 'linear-transformer'"),
        ({"masks": [{"kind": "centered"}]}, "'centered'; did you mean 'centred'"),
        ({"masks": ["query"]}, r"masks\[0\] is 'query'; allowed: an object with kind, lambda"),
        ({"masks": []}, r"masks is \(\); allowed: .*one for each head"),
        ({"masks": {"kind": "query"}}, "masks is {'kind': 'query'}; allowed: "),
        ({"masks": [{"lambda": "half"}]}, r"masks\[0\].lambda is 'half'; allowed: a number from 0 to 1"),
        ({"masks": [{"lambda": True}]}, r"masks\[0\].lambda is True"),
        ({"masks": [{}, {"lamda": 0.9}]}, r"masks\[1\] has the key 'lamda'; did you mean 'lambda'\?"),
        ({"masks": [{"lam": 0.9}]}, "key 'lam'; did you mean 'lambda'"),
        ({"masks": [{"type": "centred"}]}, "key 'type'; Allowed: kind, lambda"),
        *(({"masks": [{"lambda": lam}]}, f"lambda is {lam}; allowed") for lam in (2.0, -0.5, float("nan"))),
        ({"prompt": [True, False]}, r"prompt is \[True, False\]; allowed: {\"tokens\""),
        ({"prompt": {"discount": False}}, "prompt has the key 'discount'; did you mean 'discounted'"),
        ({"prompt": {"discounted": "false"}}, "prompt.discounted is 'false'; allowed: true or false"),
        ({"prompt": {"memory": 1}}, "prompt.memory is 1; allowed: true or false"),
        ({"n_layers": 0}, "n_layers is 0; allowed: a whole number of at least 1"),
        ({"n_layers": 2.5}, "n_layers is 2.5"),
        ({"d_features": "4"}, "d_features is '4'"),
        ({"looped": "yes"}, "looped is 'yes'; allowed: true or false"),
        ({"readout_sign": 0}, "readout_sign is 0; allowed: -1"),
        ({"n_layers": True}, "n_layers is True"),
        ({"readout_sign": True}, "readout_sign is True"),
        ({"gamma": True}, "gamma is True"),
        ({"gamma": 1.5}, "gamma is 1.5; allowed: a number above 0 and at most 1"),
        ({"gamma": 10**400}, "gamma is inf"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"gamma": 0}, 'gamma is 0, .* no next features; allowed: 0 < gamma <= 1, or "prompt": {"discounted": false}'),
        ({"gamma": "0.9"}, "gamma is '0.9'"),
        ({"readout_sing": 1}, "key 'readout_sing'; did you mean 'readout_sign'"),
        ({"gama": 0.5}, "key 'gama'; did you mean 'gamma'"),
    ],
    ids=lambda case: str(case)[:60],
)
def test_a_wrong_value_or_key_names_the_nearest(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearTransformerConfig.from_json({**MINIMAL, **change})


@pytest.mark.parametrize("key", list(MINIMAL))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks {key}; a linear transformer needs model, n_layers"):
        LinearTransformerConfig.from_json({k: v for k, v in MINIMAL.items() if k != key})


def test_a_misspelt_required_key_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match="'n_layer'; did you mean 'n_layers'"):
        LinearTransformerConfig.from_json({**{k: v for k, v in MINIMAL.items() if k != "n_layers"}, "n_layer": 3})


@pytest.mark.parametrize("data", [[], "linear-transformer", None], ids=str)
def test_anything_but_an_object_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match="must hold one JSON object"):
        LinearTransformerConfig.from_json(data)
