"""History is on disk as soon as an epoch ends, as CSV and as TensorBoard events."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headstart.training.history import History, history_columns, read_history

SCORES = ("loss", "accuracy")


def _row(epoch):
    return dict.fromkeys(history_columns(SCORES), 0.5) | {"stage": "probe", "epoch": epoch}


def test_a_row_can_be_read_before_the_history_is_closed(tmp_path):
    history = History(tmp_path, SCORES)
    history.append(_row(1))
    assert read_history(tmp_path)["epoch"].to_list() == [1]
    history.close()


def test_a_resumed_history_holds_exactly_the_rows_of_its_checkpoint(tmp_path):
    first = History(tmp_path, SCORES)
    for epoch in (1, 2, 3):
        first.append(_row(epoch))
    first.close()
    second = History(tmp_path, SCORES, first.rows[:2])
    second.append(_row(3))
    second.close()
    assert read_history(tmp_path)["epoch"].to_list() == [1, 2, 3]


def test_events_hold_every_number_of_every_epoch(tmp_path):
    history = History(tmp_path, SCORES)
    history.append(_row(1))
    history.append(_row(2))
    history.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("probe/train_loss")] == [1, 2]
    assert "probe/lr" in events.Tags()["scalars"]
