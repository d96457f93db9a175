"""Settings that are wrong are refused with the name of the key and what it should be."""

import pytest

from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.errors import ConfigError


def test_json_gives_the_same_configuration_back():
    config = ExperimentConfig.from_dict({
        'model': {'hidden_size': 64, 'num_heads': 2}, 'optimizer': {'lr': 1},
        'eval': {'depth_multiples': [2, 4]},
    })  # fmt: skip
    assert ExperimentConfig.from_json(config.to_json()) == config
    assert config.eval.depth_metrics == ('acc2x', 'acc4x')
    assert config.optimizer.lr == 1.0


@pytest.mark.parametrize(
    ('section', 'values', 'message'),
    [
        ('optimizer', {'weigth_decay': 1.0}, r'Did you mean optimizer\.weight_decay\?'),
        ('optimizer', {'lr': True}, r'optimizer\.lr must be float; got True'),
        ('optimizer', {'lr': float('nan')}, r'optimizer\.lr must be a finite number; got nan'),
        ('optimizer', {'weight_decay': float('inf')}, r'weight_decay must be a finite .* got inf'),
        ('eval', {'depth_multiples': [2, 10**12]}, r'must be below 2,147,483,648; got 1,000,000'),
        ('model', {'H_cycles': 2**31}, r'model\.H_cycles must be below 2,147,483,648'),
        ('train', {'epochs': 10.0}, r'train\.epochs must be int; got 10\.0'),
        ('train', {'epochs': 10, 'eval_interval': 3}, 'must be a multiple of train.eval_interval'),
        ('eval', {'save_outputs': 'predictions'}, r"must be a list of str; got 'predictions'"),
        ('eval', {'depth_multiples': 4}, r'eval\.depth_multiples must be a list of int; got 4'),
        ('eval', {'depth_multiples': [4, 2]}, 'must be above 1 and rise'),
        ('loss', {'loss_type': 'softmax_crossentropy'}, "Did you mean 'softmax_cross_entropy'?"),
        ('model', {'hidden_size': 100}, 'must be a multiple of model.num_heads; got 100 and 8'),
        ('model', {'attention': 'cudnn', 'forward_dtype': 'float32'}, 'needs bfloat16 or float16'),
        ('model', 3, 'config key model must be a section; got 3'),
        ('model', ModelConfig, 'config key model must be a section; got <class'),
    ],
)
def test_what_is_wrong_is_named(section, values, message):
    with pytest.raises(ConfigError, match=message):
        ExperimentConfig.from_dict({section: values})


def test_a_list_of_names_may_be_one_text_with_commas():
    for given in (['q,labels'], ['q', 'labels'], ['q, labels']):
        config = ExperimentConfig.from_dict({'eval': {'save_outputs': given}})
        assert config.eval.save_outputs == ('q', 'labels')
    with pytest.raises(ConfigError, match=r"must be one of .*; got 'q'|got 'qq'"):
        ExperimentConfig.from_dict({'eval': {'save_outputs': ['labels,qq']}})
