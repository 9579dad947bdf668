"""Text models of transformers: padding is masked in the checkpoint, and gradients are those of the word embeddings."""

import numpy as np
import pytest
import torch

import vogcore

VOCABULARY, LENGTH, CLASSES = 40, 9, 3


@pytest.fixture(scope="module")
def transformers(require):
    require("transformers")
    import transformers

    return transformers


def text_model(transformers, kind):
    torch.manual_seed(0)
    size = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64} if kind == "DistilBert" else {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, max_position_embeddings=16, num_labels=CLASSES, pad_token_id=0, **size
    )
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


def gradient(model, tokens, labels):
    """d logit of the label / d word embeddings, by autograd, with the mask as the tokeniser would give it."""
    model.eval()
    embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, attention_mask=(tokens != 0).long()).logits
    (result,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), embedded)
    return result.numpy()


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_padded_text_is_scored_by_its_embeddings(transformers, kind, tmp_path):
    from vogcore_adapters.transformers import ExportCheckpoints

    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, VOCABULARY, (24, LENGTH), generator=generator)
    for row, length in enumerate(torch.randint(3, LENGTH + 1, (24,), generator=generator)):
        tokens[row, length:] = 0
    labels = torch.randint(0, CLASSES, (24,), generator=generator)
    model = text_model(transformers, kind)
    exporter = ExportCheckpoints(tmp_path, tokens[:2]).exporter
    gradients = []
    for step in (1, 2):
        model.train()
        exporter.save(model, step)
        assert model.training
        gradients.append(gradient(model, tokens, labels))
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
    scores = vogcore.score(tmp_path, tokens.numpy(), labels.numpy(), provider="cpu")
    expected = vogcore.score_gradients(np.stack(gradients), labels.numpy()).vog_raw
    np.testing.assert_allclose(scores.vog_raw, expected, rtol=1e-3)
    assert np.median(np.abs(scores.vog_raw / expected - 1)) <= 1e-4
