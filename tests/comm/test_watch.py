"""Whom the stall watch blames."""

import struct

from dtrain.comm.board import ROW, Board, Standing, table_bytes
from dtrain.comm.communicator import aligned_zeros
from dtrain.comm.watch import holding_up, stall_text
from dtrain.comm.witness import ROW_FORMAT


def standing(rank: int, entered: int, awaited: int = 0, waited_s: float = 0.0) -> Standing:
    return Standing(rank, entered, awaited, waited_s, 100 + rank, False, "forward", "barrier", "node")


def test_ranks_that_have_not_begun_the_collective_hold_it_up() -> None:
    table = [standing(0, 7, 7, 9.0), standing(1, 6), standing(2, 7, 7, 9.0)]
    assert [late.rank for late in holding_up(table, 7)] == [1]
    assert stall_text(table[0], table) == (
        'rank 0 on node (pid 100): waiting 9.0 s in phase "forward" for collective 7 (barrier); '
        'not arrived: rank 1 on node (pid 101), phase "forward", after collective 6'
    )


def test_a_rank_that_has_begun_it_and_does_something_else_holds_it_up() -> None:
    table = [standing(0, 7, 7, 9.0), standing(1, 8), standing(2, 7, 7, 9.0)]
    assert [late.rank for late in holding_up(table, 7)] == [1]


def test_nobody_is_blamed_when_all_wait() -> None:
    table = [standing(0, 7, 7, 9.0), standing(1, 7, 7, 8.0)]
    assert holding_up(table, 7) == []
    assert "the network stands still" in stall_text(table[0], table)


def test_the_board_tells_what_each_rank_wrote() -> None:
    memory = aligned_zeros(table_bytes(3), "u1")
    boards = [Board(memory, None, rank, 3) for rank in (0, 2)]
    boards[1].phase("backward")
    boards[1].enter(4, "gradient bucket 1 of 2")
    boards[1].begin_wait(4, "x" * 100)
    first, third = boards[0].standings()  # rank 1 has not joined
    assert (first.rank, first.entered, first.awaited, first.waited_s) == (0, 0, 0, 0.0)
    assert (third.rank, third.phase, third.entered, third.awaited) == (2, "backward", 4, 4)
    assert third.label == "x" * 56
    assert 0 <= third.waited_s < 5
    boards[1].end_wait()
    assert boards[0].standings()[1].waited_s == 0.0


def test_the_witness_reads_rows_as_the_board_writes_them() -> None:
    assert struct.calcsize(ROW_FORMAT) == ROW.itemsize
    memory = aligned_zeros(table_bytes(1), "u1")
    board = Board(memory, None, 0, 1)
    board.enter(5, "barrier")
    board.leave()
    entered, awaited, _, _, left, phase, label, _, *_device = struct.unpack(ROW_FORMAT, memory.tobytes())
    assert (entered, awaited, left) == (5, 0, 1)
    assert (phase.rstrip(b"\0"), label.rstrip(b"\0")) == (b"start", b"barrier")
