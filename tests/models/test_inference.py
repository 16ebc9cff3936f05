"""Running a network over the store: in order, from any batch, without leaving anything behind."""

import numpy as np
import torch

from headstart.models.inference import BATCH_SIZE, InferenceLog, iterate_outputs, run_network


def test_outputs_stand_in_the_order_asked_for(parts):
    network, store, records = parts
    forth = run_network(network, store, records[:70], description="")
    back = run_network(network, store, records[:70][::-1], description="")
    assert np.allclose(forth, back[::-1], atol=1e-5)


def test_starting_at_a_later_batch_gives_the_rest(parts):
    network, store, records = parts
    whole = run_network(network, store, records[:150], description="")
    rest = np.concatenate(list(iterate_outputs(network, store, records[:150], first_batch=1)))
    assert np.allclose(rest, whole[BATCH_SIZE:], atol=1e-5)


def test_gradients_are_on_again_between_two_batches(parts):
    network, store, records = parts
    outputs = iterate_outputs(network, store, records[:100])
    next(outputs)
    assert not torch.is_inference_mode_enabled()
    outputs.close()


def test_many_images_run_compiled_and_agree_with_pytorch(parts):
    network, store, records = parts
    many, log = np.resize(records, 300), InferenceLog()
    compiled = run_network(network, store, many, description="", log=log)
    eager = run_network(network, store, many[:64], description="")
    assert log.note is None
    assert np.allclose(compiled[:64], eager, atol=1e-3 * np.abs(eager).max())


def test_the_log_says_where_the_time_went(parts):
    network, store, records = parts
    log = InferenceLog()
    run_network(network, store, records[:10], description="", log=log)
    assert set(log.seconds) == {"decode", "augment", "wait", "step", "total"}
    assert log.num_images == 10
