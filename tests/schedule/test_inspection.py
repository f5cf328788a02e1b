"""What a schedule tells about itself: neighbours, explain, diff, estimate, report; and the library of schedules."""

from pathlib import Path

import pytest
from harness import check
from kernels import add, blur, matmul, matmul_relu_scale, product, row_sum, symbolic_sum

import tcomp
from tcomp import te
from tcomp.errors import ScheduleError
from tcomp.schedule import Schedule, library


def names(refs: list) -> list[str]:
    return [r.name for r in refs]


def test_neighbours() -> None:
    sch = Schedule(matmul_relu_scale())
    assert names(sch.get_producers("D")) == ["C"] and names(sch.get_consumers("D")) == ["E"]
    assert names(sch.get_output_blocks()) == ["E"] and names(sch.get_blocks()) == ["C", "D", "E"]
    i, j = sch.get_loops("D")
    sch.compute_at("C", i)
    assert names(sch.get_child_blocks(i)) == ["C", "D"] and names(sch.get_child_blocks(j)) == ["D"]
    assert sch.get_producers("C") == []


def test_explain_says_what_may_be_done_and_why_not() -> None:
    sch = Schedule(matmul())
    i, _, k = sch.get_loops("C")
    said = sch.explain(k)
    assert "7 iterations, 2 loops around it" in said and "block C: reduce iterator vk" in said
    assert "parallel   no: it carries a reduction: block C at k=0 writes and block C at k=1 writes" in said
    assert "unroll     yes" in said
    assert "parallel   yes" in sch.explain(i)
    sch.compute_at("C", sch.get_loops("D")[1])
    assert "does not depend on it" not in sch.explain(sch.get_loops("D")[1])


def test_diff_shows_the_last_step() -> None:
    sch = Schedule(add())
    assert sch.diff() == ""
    sch.split(sch.get_loops("B")[0], [None, 4])
    lines = sch.diff().splitlines()
    assert "-  for i in range(10):" in lines and "+    for i_1 in range(4):" in lines
    assert len(sch.history) == 1 and sch.history[0][0].method == "split"


def test_show_prints_the_nest(capsys: pytest.CaptureFixture) -> None:
    Schedule(add()).show()
    assert "block B(vi over 10 = i):" in capsys.readouterr().out


def test_estimate_of_a_product() -> None:
    """Sizes chosen so that everything can be counted by hand."""
    target = tcomp.Target.parse("llvm -mcpu=skylake-avx512")
    n = 64
    sch = Schedule(product(n, n, n))
    plain = sch.estimate(target)
    assert plain.flops == 2 * n**3 and plain.footprint == 3 * n * n * 4
    # all of it fits L2: each element comes once; a row of A and all of B meet in L1
    assert plain.traffic["L2"] == plain.footprint
    assert plain.intensity("L2") == pytest.approx(2 * n**3 / (3 * n * n * 4))
    assert plain.registers == 0 and plain.available == 32
    library.register_tile(sch, "C", [6], 2, 16)
    tiled = sch.estimate(target)
    assert tiled.registers == 6 * 2 + 2 + 1
    assert tiled.traffic["registers"] < plain.traffic["registers"] / 3
    assert "flop/byte" in str(tiled)


def test_estimate_counts_points_under_conditions_and_strides() -> None:
    sch = Schedule(add(10))
    sch.split(sch.get_loops("B")[0], [None, 4])  # 12 iterations, 10 of which do something
    assert sch.estimate().flops == 10
    a = te.placeholder((64,), name="A")
    strided = te.create_prim_func([a, te.compute((16,), lambda i: a[i * 4] * 2.0, name="B")])
    assert Schedule(strided).estimate().footprint == 2 * 16 * 4  # one element in four


def test_estimate_of_unknown_sizes() -> None:
    sch = Schedule(symbolic_sum())
    with pytest.raises(ScheduleError, match="extent n is symbolic"):
        sch.estimate()
    assert sch.estimate(n=100).flops == 400


def test_report_is_one_page_with_every_step(tmp_path: Path) -> None:
    sch = Schedule(matmul())
    i, j, _ = sch.get_loops("C")
    sch.tile(i, j, 4, 4)
    sch.annotate("C", "note", "<b>&")
    path = sch.report(tmp_path / "out.html")
    page = path.read_text()
    assert page.count("<section>") == 5 and page.count("<button>") == 5
    assert "sch.split(i, [None, 4])" in page.replace("&#x27;", "'") and "<b>&" not in page
    assert "http" not in page and 'class="new"' in page and 'class="gone"' in page
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        sch.report(tmp_path / "nowhere" / "out.html")


# the library


def test_multi_level_tile_orders_the_levels() -> None:
    func = product(12, 16, 8)
    sch = Schedule(func)
    levels = library.multi_level_tile(sch, "C", [[None, 2, 3], [2, None, 4], [None, 4]], "SSRSR")
    order = [v.name for level in levels for v in level]
    assert [v.name for v in sch.get_loops("C")] == order
    assert [sch.get_extent(v) for v in sch.get_loops("C")] == [2, 2, 2, 2, 2, 3, 4, 4]
    check(sch, func)
    with pytest.raises(ScheduleError, match="2 lists of factors for 3 loops"):
        library.multi_level_tile(Schedule(func), "C", [[1], [1]], "SR")
    with pytest.raises(ScheduleError, match="has 1 factors, the structure SSR has 2"):
        library.multi_level_tile(Schedule(func), "C", [[12], [None, 4], [8]], "SSR")


def test_tile_2d_needs_two_spatial_loops() -> None:
    with pytest.raises(ScheduleError, match="1 spatial loops"):
        library.tile_2d(Schedule(row_sum()), "S", 2, 2)


@pytest.mark.parametrize("sizes", [(6, 10, 7), (12, 64, 16), (13, 50, 9)])
def test_register_tile_and_packing(sizes: tuple[int, int, int]) -> None:
    func = product(*sizes)
    sch = Schedule(func)
    tile = library.register_tile(sch, "C", [4], 2, 8)
    library.pack_operand(sch, "C", "B", tile.outer[0], 8)
    sch.parallel(tile.outer[0])
    assert sch.get_loops("C")[: tile.depth] == tile.outer and tile.reduce[0] in sch.get_loops("C")
    check(sch, func)


def test_overlapping_tiles_compute_their_borders() -> None:
    a = te.placeholder((14, 14), name="A")
    b = te.compute((14, 12), lambda y, x: a[y, x] + a[y, x + 2], name="B")
    c = te.compute((12, 12), lambda y, x: b[y, x] * 2.0, name="C")
    func = te.create_prim_func([a, te.compute((10, 12), lambda y, x: c[y, x] + c[y + 2, x], name="S")])
    sch = Schedule(func)
    loops = library.overlap_tiles(sch, "S", 4, 4)
    assert sch.get_loops("B")[:2] == sch.get_loops("C")[:2] == list(loops[:2])
    assert sch.get_extent(sch.get_loops("C")[2]) == 6
    library.vectorize_innermost(sch, "S", 4)
    sch.parallel(loops[0])
    check(sch, func)


def test_lanes_of_a_reduction_and_outer_threads() -> None:
    func = row_sum(37)
    sch = Schedule(func)
    partial = library.rfactor_lanes(sch, "S", 8)
    library.vectorize_partial(sch, partial)
    assert library.parallel_outer(sch, "S") is not None
    check(sch, func)
    sch = Schedule(blur(1))
    assert library.vectorize_innermost(sch, "S", 8) is None


def test_rows_of_few_channels_run_in_whole_vectors() -> None:
    """A padded image of three channels: its border ends within a vector, and no lane divides to find out."""
    a = te.placeholder((6, 9, 3), name="A")
    pad = te.compute(
        (8, 11, 3),
        lambda y, x, c: te.if_then_else((y >= 1) & (y < 7) & (x >= 1) & (x < 10), a[y - 1, x - 1, c], 0.0),
        name="P",
    )
    func = te.create_prim_func([a, pad])
    sch = Schedule(func)
    lane = library.vectorize_run(sch, "P", 8)
    assert lane is not None and len(sch.get_loops("P")) == 3
    check(sch, func)
    assert "sdiv" not in tcomp.compile(sch).ir("llvm")
