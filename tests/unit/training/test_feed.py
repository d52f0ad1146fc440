"""The feed: the same samples and draws for any number of workers, resumable, no error lost in the thread."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from components.training.config import TrainConfig
from components.training.feed import Feed
from tests.unit.training.made_prompts import made_prompts

PROMPTS = made_prompts()


class Reader:
    """Sample n of the stream is all n; a global batch is the next 8 of them."""

    def __init__(self, rank=0, world_size=1, fail_at=None):
        self.rank, self.share, self.fail_at = rank, 8 // world_size, fail_at

    position, in_memory = 0, True

    def about(self, number):
        prompt = {} if number % 2 else {"prompt": "S* smiling"}
        return {"target_landmarks_xy": np.full((5, 2), number).tolist()} | prompt

    def batches(self, start_step, position=None):
        step = start_step
        while step != self.fail_at:
            first = step * 8 + self.rank * self.share
            numbers = np.arange(first, first + self.share)
            yield {
                "__key__": [str(n) for n in numbers],
                "features.npy": np.broadcast_to(numbers[:, None, None, None], (self.share, 2, 3, 4)).astype(
                    np.float16
                ),
                "other.features.npy": np.full((self.share, 2, 3, 4), -1, np.float16),
                "latents.npy": np.broadcast_to(numbers[:, None, None, None], (self.share, 4, 2, 2)).astype(
                    np.float16
                ),
                "identity.npy": np.broadcast_to(numbers[:, None], (self.share, 5)).astype(np.float32),
                "meta.json": [self.about(int(n)) for n in numbers],
            }
            step += 1
        raise ValueError("shard train-000001.tar is damaged")


def feed(reader, rank=0, world_size=1, **settings):
    config = TrainConfig.parse(
        {"global_batch_size": 8, "condition_dropout": 0.3, "face_loss": {"fraction": 0.5, "max_timestep": 1}}
        | settings,
        source="a test",
    )
    return Feed(
        reader,
        config,
        seed=3,
        num_train_timesteps=100,
        prompts=PROMPTS,
        vae_scale_factor=4,
        rank=rank,
        world_size=world_size,
    )


def taken(feed, start, count):
    steps = feed.steps(start)
    inputs = [next(steps) for _ in range(count)]
    steps.close()
    return inputs


def tensors_of(batch):
    return {field.name for field in fields(batch) if isinstance(getattr(batch, field.name), torch.Tensor)}


def joined(inputs, name):
    return torch.cat([getattr(micro, name) for step in inputs for micro in step.micro_batches])


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}])
def test_two_workers_see_together_what_one_sees(settings):
    weighted = {"losses": {"face_weight": 6}}
    whole = taken(feed(Reader(), **weighted), 4, 1)
    parts = [taken(feed(Reader(rank, 2), rank, 2, **settings, **weighted), 4, 1)[0] for rank in (0, 1)]
    assert parts[0].keys + parts[1].keys == whole[0].keys
    for name in tensors_of(whole[0].micro_batches[0]) - {"face_rows", "face_share"}:
        assert torch.equal(joined(parts, name), joined(whole, name)), name
    shares = {float(micro.face_share) for part in parts for micro in part.micro_batches}
    assert shares == {float(whole[0].micro_batches[0].face_share)} == {0.25}


def test_starting_later_gives_the_same_steps():
    from_start, later = taken(feed(Reader()), 0, 5), taken(feed(Reader()), 3, 2)
    assert [inputs.step for inputs in later] == [3, 4]
    assert later[0].keys == from_start[3].keys
    assert torch.equal(joined(later, "noise"), joined(from_start[3:], "noise"))


def test_face_rows_carry_their_own_identity_and_landmarks():
    (inputs,) = taken(feed(Reader()), 1, 1)
    batch = inputs.micro_batches[0]
    assert len(batch.face_rows) == 4
    numbers = 8 + batch.face_rows
    assert torch.equal(batch.identity[:, 0], numbers.float())
    assert torch.equal(batch.landmarks_xy[:, 4, 1], numbers.float())


def test_dropped_samples_get_the_empty_prompt():
    batch = taken(feed(Reader()), 0, 1)[0].micro_batches[0]
    dropped = batch.sigma == 0
    dropped &= batch.gamma == 1
    assert dropped.any()
    (plain, empty), _ = PROMPTS.rows([None, ""])
    assert torch.equal(batch.input_ids[dropped], empty.expand(int(dropped.sum()), -1))
    assert (batch.word_positions[dropped] == -1).all()
    assert torch.equal(batch.input_ids[~dropped][0], plain)


def test_a_share_of_the_samples_is_trained_with_the_photos_own_prompt():
    batch = joined(taken(feed(Reader(), photo_prompts=0.5, condition_dropout=0), 0, 50), "input_ids")
    (plain, own), _ = PROMPTS.rows([None, "S* smiling"])
    has_own = (batch == own).all(1)
    assert torch.equal(batch[~has_own], plain.expand(int((~has_own).sum()), -1))
    assert 0.4 < has_own[::2].float().mean() < 0.6
    assert not has_own[1::2].any()  # every second photo has none


def test_prompts_of_their_own_change_no_other_draw():
    plain, own = (taken(feed(Reader(), photo_prompts=share), 2, 1)[0].micro_batches[0] for share in (0, 1))
    for name in tensors_of(plain) - {"input_ids", "word_positions"}:
        assert torch.equal(getattr(plain, name), getattr(own, name)), name
    assert not torch.equal(plain.input_ids, own.input_ids)


def test_a_share_of_the_samples_sees_another_photo_of_the_person():
    features = joined(taken(feed(Reader(), pairs=0.5), 0, 50), "features")
    paired = (features == -1).flatten(1).all(1)
    assert 0.4 < paired.float().mean() < 0.6
    own = joined(taken(feed(Reader()), 0, 50), "features")
    assert torch.equal(features[~paired], own[~paired])


def test_pairs_change_no_other_draw():
    plain, pairs = (taken(feed(Reader(), pairs=share), 2, 1)[0].micro_batches[0] for share in (0, 1))
    for name in tensors_of(plain):
        assert (name == "features") != torch.equal(getattr(plain, name), getattr(pairs, name)), name


def test_noise_offset_is_constant_over_a_channel():
    plain = taken(feed(Reader()), 0, 1)[0].micro_batches[0]
    offset = taken(feed(Reader(), losses={"noise_offset": 0.5}), 0, 1)[0].micro_batches[0]
    difference = offset.noise - plain.noise
    torch.testing.assert_close(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6, rtol=0)
    assert difference.std() > 0.1


def test_an_error_of_the_reader_reaches_the_training_thread():
    steps = feed(Reader(fail_at=2)).steps(0)
    next(steps), next(steps)
    with pytest.raises(ValueError, match=r"train-000001\.tar is damaged"):
        next(steps)


def test_casting_keeps_landmarks_and_identity_exact():
    batch = taken(feed(Reader()), 0, 1)[0].micro_batches[0].to(torch.device("cpu"), torch.bfloat16)
    assert batch.noise.dtype == batch.features.dtype == torch.bfloat16
    assert batch.landmarks_xy.dtype == batch.identity.dtype == torch.float32
    assert batch.timesteps.dtype == torch.int64


SAMPLED = {"sampled_face": {"lambda_sampled": 1.0, "every_n_samples": 2}}


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}])
def test_what_is_drawn_from_noise_does_not_depend_on_workers(settings):
    (whole,) = taken(feed(Reader(), **SAMPLED), 4, 1)[0].micro_batches
    parts = [taken(feed(Reader(rank, 2), rank, 2, **SAMPLED, **settings), 4, 1)[0] for rank in (0, 1)]
    drawn = [micro.from_noise for part in parts for micro in part.micro_batches]
    for field in fields(drawn[0])[:-1]:
        together = torch.cat([getattr(part, field.name) for part in drawn])
        assert torch.equal(together, getattr(whole.from_noise, field.name)), field.name
    assert {float(part.share) for part in drawn} == {float(whole.from_noise.share)} == {0.25}


def test_each_nth_sample_is_drawn_from_noise_of_its_own_and_never_with_the_empty_prompt():
    settings = SAMPLED | {"condition_dropout": 0.9, "photo_prompts": 1.0}
    batch = taken(feed(Reader(), **settings), 1, 1)[0].micro_batches[0]
    drawn = batch.from_noise
    assert drawn.identity[:, 0].tolist() == drawn.landmarks_xy[:, 4, 1].tolist() == [8, 10, 12, 14]
    assert drawn.features[:, 0, 0, 0].tolist() == [8, 10, 12, 14]
    assert not (drawn.noise == batch.noise[::2]).any()
    (own, empty), _ = PROMPTS.rows(["S* smiling", ""])
    assert torch.equal(drawn.input_ids, own.expand(4, -1))
    assert torch.equal(drawn.empty_ids, empty.expand(4, -1))


def test_nothing_is_drawn_from_noise_where_the_term_is_off_or_not_due():
    off, early = {}, {"sampled_face": {"lambda_sampled": 1.0, "start_step": 2, "every_n_steps": 3}}
    for settings, due in ((off, []), (early, [3, 6])):
        steps = taken(feed(Reader(), **settings), 0, 8)
        assert [step.step for step in steps if step.micro_batches[0].from_noise is not None] == due


def test_pictures_from_noise_keep_identity_and_landmarks_exact():
    batch = taken(feed(Reader(), **SAMPLED), 0, 1)[0].micro_batches[0].to(torch.device("cpu"), torch.bfloat16)
    drawn = batch.from_noise
    assert drawn.noise.dtype == drawn.features.dtype == torch.bfloat16
    assert drawn.landmarks_xy.dtype == drawn.identity.dtype == drawn.share.dtype == torch.float32


def landmarks_at(x, y):
    """Those of a face 8 pixels wide whose mouth is at (x, y)."""
    return [[x - 4, y - 8], [x + 4, y - 8], [x, y - 4], [x - 3, y], [x + 3, y]]


class Faces(Reader):
    """Samples of 16 x 16 latents, whose targets have their mouth at different places of 64 x 64 pixels."""

    def batches(self, start_step, position=None):
        for batch in super().batches(start_step, position):
            latents = np.zeros((self.share, 4, 16, 16), np.float16)
            yield batch | {"latents.npy": latents}

    def about(self, number):
        return {"target_landmarks_xy": landmarks_at(16 + 4 * (number % 8), 40)}


def test_the_face_and_its_mouth_may_count_more_where_they_are_in_the_latents():
    def weights(**losses):
        return joined(taken(feed(Faces(), losses=losses), 0, 1), "place_weight")

    face, both = weights(face_weight=6), weights(face_weight=6, mouth_weight=12)
    assert both.shape == (8, 1, 16, 16)
    torch.testing.assert_close(both.mean((1, 2, 3)), torch.ones(8))
    most = (both / face).flatten(1).argmax(1)
    expected_x = torch.arange(16, 48, 4) / 4  # four pixels a latent
    assert (most % 16 - expected_x).abs().max() <= 1
    assert (most // 16 - 40 / 4).abs().max() <= 1
    assert both[0, 0, 9, 4] > 3 * both[0, 0, 0, 15]


def test_without_such_weights_all_places_count_alike():
    assert taken(feed(Reader()), 0, 1)[0].micro_batches[0].place_weight is None
