"""T3A: with all kept, templates are means by class; with M, the M surest; and a single logit is two classes."""

import torch
from torch.nn import functional as F

from client.adaptation.answers import entropy
from client.adaptation.head import class_biases, class_weights
from client.adaptation.source import Source
from client.adaptation.t3a import T3a, T3aSettings
from common.config import ModelSection
from common.models.build import build_model


def make(outputs, seed=0):
    model = build_model(ModelSection(name="se-convnet", width=4), 1, outputs, 16, seed=seed).eval()
    with torch.no_grad():
        model.head.weight *= 3
        model.head.bias.normal_(generator=torch.Generator().manual_seed(1))
    return model


def images(count=30, seed=3):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_keeping_all_gives_the_mean_of_each_class():
    model = make(3)
    method = T3a(model, Source(), T3aSettings(keep=0))
    for batch in images().split(7):
        method.adapt(batch)
    with torch.no_grad():
        z, labels = F.normalize(model.features(images()), dim=1), model(images()).argmax(1)
        weights = F.normalize(model.head.weight, dim=1)
        means = torch.stack([torch.cat([weights[k : k + 1], z[labels == k]]).mean(0) for k in range(3)])
    torch.testing.assert_close(method.templates(), F.normalize(means, dim=1), rtol=1e-4, atol=1e-6)
    assert len(method.labels) == 33, "not even the least sure is dropped"


def test_keeping_some_keeps_the_surest_of_each_class():
    model = make(3)
    method = T3a(model, Source(), T3aSettings(keep=4))
    for batch in images().split(7):
        method.adapt(batch)
    with torch.no_grad():
        scores = torch.cat([model.head.weight @ model.head.weight.T + model.head.bias, model(images())])
    unsure, labels = entropy(scores.log_softmax(1)), scores.argmax(1)
    labels[:3] = method.labels.new_tensor([0, 1, 2]) if len(set(labels[:3].tolist())) < 3 else labels[:3]
    for k in range(3):
        wanted = unsure[labels == k].sort().values[:4]
        torch.testing.assert_close(method.entropies[method.labels == k].sort().values, wanted)


def test_a_single_logit_is_a_choice_of_two_with_the_same_answer():
    model = make(1)
    with torch.no_grad():
        z = model.features(images())
        scores = z @ class_weights(model).T + class_biases(model)
        torch.testing.assert_close(scores.softmax(1)[:, 1:], model(images()).sigmoid())
    one = T3a(model, Source())
    two = make(2)
    with torch.no_grad():
        two.load_state_dict(
            {**model.state_dict(), "head.weight": class_weights(model), "head.bias": class_biases(model)}
        )
    other = T3a(two, Source())
    for batch in images().split(10):
        torch.testing.assert_close(one.adapt(batch)[:, 0], other.adapt(batch)[:, 1])
