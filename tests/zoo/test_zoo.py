"""Every network of the zoo is understood, pruned by 30 % and 50 %, and exported again."""

from __future__ import annotations

import pytest
import torch

from featherweight.network.capture import capture
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm, remove, silence
from tests.network.cutting import lively, parameters, random_removals, relative_error
from tests.zoo.catalogue import ZOO

# What forward can't spare, by design: classes or scores, and what the padded shortcuts of ResNet-20 make of nothing.
FIXED_LAYERS = {
    "lenet5": {"fc3"}, "vgg11": {"classifier.5"}, "resnet18": {"fc"}, "regnet": {"head"}, "inception": {"fc"},
    "resnet20": {"linear"} | {f"layer{stage}.{block}.conv2" for stage in (2, 3) for block in range(3)},
    "mobilenet_v1": {"fc"}, "mobilenet_v2": {"classifier.1"}, "mobilenet_v3": {"classifier.3"}, "shufflenet_v2": {"fc"},
    "squeezenet": {"classifier.1"}, "efficientnet": {"head.3"}, "fastestdet": {"obj.2", "reg.2", "cls.2"},
    "densenet": {"classifier"}, "unet": {"outc"}, "super_resolution": {"tail"}, "volume": {"out"},
    "keyword_spotter": {"fc"}, "vit": {"head"}, "bert": {"classifier"}, "seq2seq": {"out"}, "decoder": {"head"},
    "convnext": {"head"}, "lstm": {"fc"}, "gru": {"fc2"}, "two_tower": set(),
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name):
    make, example = ZOO[name]
    network = capture(lively(make()), example())
    before = {key: tensor.clone() for key, tensor in network.module.state_dict().items()}
    coupling = confirm(network, analyse(network.graph))
    refused = {refusal.subject for refusal in coupling.refusals}
    assert refused == FIXED_LAYERS[name]
    sizes = [parameters(network.module)]
    for ratio in (0.3, 0.5):
        removals = random_removals(coupling, ratio)
        smaller = remove(network, coupling, removals)
        output = smaller(*network.example)
        assert relative_error(output, silence(network.graph, coupling, removals)(*network.example)) < 1e-5
        assert relative_error(output, network.module(*network.example)) > 1e-3
        again = capture(smaller, network.example)
        assert relative_error(again.graph(*network.example), output) < 1e-5
        sizes.append(parameters(smaller))
    assert sizes[2] < sizes[1] < sizes[0]
    assert all(torch.equal(before[key], tensor) for key, tensor in network.module.state_dict().items())
    assert type(smaller) is type(network.module)
