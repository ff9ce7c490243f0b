"""The arithmetic of the benchmark commands: what turns measurements into the figures they report."""

import sys
from types import SimpleNamespace

import pytest

from marl_td.tasks import make_env


def row(size, seconds, used, skipped=""):
    return {
        "task": "t",
        "axis": "envs",
        "envs": size,
        "seconds": seconds,
        "bytes": used,
        "skipped": skipped,
    }


def test_exponent_is_the_power_of_a_power_law_and_needs_three_points(script):
    growth = script("growth")
    sizes = [1.0, 4.0, 16.0, 64.0]
    assert growth.exponent(sizes, [3.0 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert growth.exponent([1.0, 10.0, 100.0], [2.0, 1.0, 2.0]) == pytest.approx(0.0)
    assert growth.exponent(sizes[:2], [1.0, 2.0]) is None


def test_exponents_leave_the_floor_and_what_was_skipped_out(script):
    growth = script("growth")
    rows = [row(4**k, 1.0 + 4.0**k / 64, 4**k) for k in range(7)] + [row(4**7, "", "", "too big")]
    (found,) = growth.exponents(rows)
    # Time is 1 + n / 64: twice the smallest from 256 on. Memory has no floor but its smallest point.
    assert found["time, from size"] == "256"
    assert 0.4 < float(found["time, overall"]) < float(found["time, above the floor"]) < 1.0
    assert (found["memory, overall"], found["memory, above the floor"]) == ("1.00", "1.00")
    (nothing,) = growth.exponents([row(1, "", "", "too big")])
    assert nothing["time, overall"] == nothing["memory, above the floor"] == "-"


@pytest.fixture
def growing(script, tmp_path, monkeypatch):
    """`growth.py` whose points cost 2 ns and 3 bytes per agent-step and end at 30; and what was asked."""
    growth, asked = script("growth"), []

    def point(curve, size, args):
        asked.append((curve.task, size))
        size_of = {"envs": args.agent_envs, "agents": 4} | {curve.axis: size}
        cells = size_of["envs"] * size_of["agents"]
        measured = {"seconds": 2e-9 * cells, "bytes": cells * 20 * 3, "compile_s": 1.5}
        found = measured | {"agents": size_of["agents"]} if size < 30 else {"skipped": "too big"}
        return growth.blank(curve, size, args) | found

    monkeypatch.setattr(growth, "point", point)
    monkeypatch.setattr(growth, "RESULTS", tmp_path)
    growth.asked = asked
    return growth


def asked_for(growth, *sizes, curves=None):
    args = SimpleNamespace(envs=[1], agents=list(sizes), agent_envs=16, steps=20)
    curves = curves or [growth.Curve("agents", "retail")]
    growth.measure(growth.points(curves, args), args, growth.RESULTS / "x.csv")
    return growth.read(growth.RESULTS / "x.csv")


def test_sizes_after_one_that_was_too_large_are_reported_as_not_tried(growing):
    rows = asked_for(growing, 30, 3, 100)
    assert growing.asked == [("retail", 3), ("retail", 30)]
    assert [r["agents"] for r in rows] == [3, 30, 100]
    assert [r["skipped"] for r in rows] == [
        "",
        "too big",
        "not tried: a smaller size was too large",
    ]
    assert (rows[0]["ns_per_agent_step"], rows[0]["bytes_per_agent_step"]) == (2.0, 3.0)
    assert (rows[0]["seconds"], rows[0]["bytes"]) == (2e-9 * 48, 48 * 60)


def test_growth_goes_on_where_it_was(growing):
    asked_for(growing, 3, 100)
    growing.asked.clear()
    curves = [growing.Curve("agents", "retail"), growing.Curve("agents", "mapf", ("sight=2",))]
    rows = asked_for(growing, 3, 10, 200, curves=curves)
    # 3 and 100 are there, 200 is larger than what was too large; the other curve has nothing yet
    assert growing.asked == [("retail", 10), ("mapf", 3), ("mapf", 10), ("mapf", 200)]
    assert [(r["task"], r["agents"]) for r in rows] == [
        *(("retail", n) for n in (3, 100, 10, 200)),
        *(("mapf sight=2", n) for n in (3, 10, 200)),
    ]
    assert rows[3]["skipped"].startswith("not tried")
    growing.asked.clear()
    assert asked_for(growing, 3, 10, 200, curves=curves) == rows and growing.asked == []


def test_growth_keeps_what_ended_before_it_was_stopped(growing, monkeypatch):
    point = growing.point

    def stopped(curve, size, args):
        if size == 10:
            raise KeyboardInterrupt
        return point(curve, size, args)

    monkeypatch.setattr(growing, "point", stopped)
    with pytest.raises(KeyboardInterrupt):
        asked_for(growing, 3, 5, 10)
    rows = growing.read(growing.RESULTS / "x.csv")
    assert [r["agents"] for r in rows] == [3, 5]


def test_the_table_of_growth_is_made_from_the_rows(growing, monkeypatch, capsys):
    asked_for(growing, 20, 5)
    asked_for(growing, 3, 10)
    growing.asked.clear()
    monkeypatch.setattr("sys.argv", ["growth.py", "--summary", "--name", "x"])
    growing.main()
    text = (growing.RESULTS / "x.md").read_text()
    assert growing.asked == [] and text in capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| retail | 16")]
    assert [line.split(" | ")[2] for line in lines] == ["3", "5", "10", "20"]
    assert "| retail | agents | 1.00 |" in text  # two exponents: both are proportional
    assert (growing.RESULTS / "x.png").stat().st_size > 1000
    monkeypatch.setattr("sys.argv", ["growth.py", "--summary", "--name", "y"])
    with pytest.raises(SystemExit, match=r"there are no rows in .*y\.csv"):
        growing.main()


def test_growth_adds_no_row_to_a_file_of_other_columns(growing):
    (growing.RESULTS / "x.csv").write_text("task,axis,envs\nretail,envs,1\n")
    with pytest.raises(ValueError, match=r"x\.csv has other columns than this version writes"):
        asked_for(growing, 3)
    assert growing.asked == []


def test_peak_is_of_the_running_total_in_order_of_time(script):
    peak_of = script("growth_point").peak_of
    assert peak_of([(3, -50), (1, 100), (2, 20), (4, 30)]) == 120
    assert peak_of([(1, -10), (2, 5)]) == 0


def test_peak_bytes_counts_what_is_held_at_once(script):
    import torch

    peak_bytes = script("growth_point").peak_bytes
    held = []

    def run():
        torch.empty(1000)  # freed again
        held.append(torch.empty(500))
        torch.empty(2000)

    assert 4 * 2500 <= peak_bytes(run, "cpu") < 4 * 2500 + 512


def test_the_watch_tells_the_share_of_the_time_in_kernels(script, monkeypatch):
    import torch

    on_gpu = script("on_gpu")
    watch = on_gpu.Watch("cpu")
    watch.start()
    torch.ones(3)
    watch.stop()
    assert "aten::ones" in {event.key for event in watch.profile.key_averages()}
    watch = on_gpu.Watch("cpu")
    events = [SimpleNamespace(self_cpu_time_total=time) for time in (300_000.0, 200_000.0)]
    clock = iter([3.0, 5.0])
    monkeypatch.setattr(watch.profile, "key_averages", lambda: events)
    monkeypatch.setattr(watch, "_now", lambda: next(clock))
    watch.start()
    assert watch.stop()["in kernels"] == "25%"
    assert on_gpu.columns(lambda: None, "cpu") == {}


def test_a_run_is_summed_up_by_its_second_half_and_its_first_window_at_the_goal(script):
    end_to_end = script("end_to_end")
    scores = [None, -90.0, -70.0, -60.0, -80.0]
    lines = [end_to_end.Line(10.0 + i, 8.0 + i / 2, 100 * i, s) for i, s in enumerate(scores)]
    found = end_to_end.summary(lines, goal=-65.0, window=2)
    assert (found["first iteration s"], found["steps/s"], found["steps/CPU s"]) == (10, 100, 200)
    assert (found["goal s"], found["goal steps"]) == (13, 300)
    assert end_to_end.summary(lines, goal=-50.0, window=1)["goal s"] is None


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ('print(\'{"steps": 10, "return": 1.0}\')', "1 iterations are too few.*more than 600"),
        ("raise SystemExit(3)", "this failed; run it by hand"),
    ],
    ids=["too short", "fails"],
)
def test_a_run_that_cannot_be_summed_up_says_what_to_do(child, message, script):
    end_to_end = script("end_to_end")
    with pytest.raises(RuntimeError, match=message):
        end_to_end.run([sys.executable, "-c", child], 600, seed=0, threads=1)


def test_rows_of_algorithms_that_run_again_replace_the_old_ones(script, tmp_path, monkeypatch):
    common = script("common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    for name, score in (("a", "1"), ("b", "2"), ("a", "3")):
        rows = common.put("table", {"algorithm": name, "score": score}, ["algorithm"])
    assert rows == [{"algorithm": "a", "score": "3"}, {"algorithm": "b", "score": "2"}]
    assert (tmp_path / "table.md").read_text() == f"{common.markdown(rows)}\n"


def test_what_grows_has_some_numbers_per_agent(script):
    agents = script("agents")
    widths = {
        kind.name: (kind.width("state", 50), kind.width("observation", 50)) for kind in agents.KINDS
    }
    grown, fixed = 50 * agents.PER_AGENT, agents.FIXED
    assert widths == {
        "uncompiled": (fixed, fixed),
        "uncompiled, state grows": (grown, fixed),
        "uncompiled, observation grows": (fixed, grown),
        "compiled": (fixed, fixed),
    }


def test_published_tables_are_re_run_cell_by_cell(script):
    """A row says what was measured; the table puts the published value beside it."""
    matignon = script("matignon_table")
    assert [matignon.best_payoff(tables) for tables in matignon.GAMES.values()] == [
        10,
        10,
        11,
        11,
        11,
    ]
    args = SimpleNamespace(runs=4, trials=300, stochastic_trials=200, quiet=True)
    rows = [
        matignon.measured("distributed_q", game, {"epsilon": 0.5}, args)
        for game in ("penalty 0", "partially stochastic")
    ]
    assert [row["trials"] for row in rows] == [300, 200]
    assert (rows[0]["optimal %"], rows[0]["published %"]) == ("100.0", 100)
    assert rows[0]["settings"] == "epsilon=0.5"
    (line,) = matignon.table(rows)
    assert line["penalty 0"] == "100.0 (39.8 to 100.0), **100**"
    assert line["partially stochastic"].endswith("**7**")


def test_qtran_s_table_is_re_run_by_networks(script):
    """A few steps: every seed plays and learns by itself, and is judged by what is determined."""
    import torch

    qtran = script("qtran_table")
    args = SimpleNamespace(steps=3, hidden=8, minibatch=4, replay=2, rate=1e-2)
    steps = SimpleNamespace(update=lambda: None)
    runs = qtran.by_networks("vdn", [0, 1], args, steps)
    assert runs[0].table != runs[1].table
    alone = qtran.by_networks("vdn", [1], args, steps)
    torch.testing.assert_close(torch.tensor(alone[0].table), torch.tensor(runs[1].table))
    assert qtran.properties("vdn", runs)["seeds within 0.5"] == "0 of 2"
    known = [SimpleNamespace(table=qtran.KNOWN_OF_QMIX, greedy_payoff=0.0)]
    assert qtran.properties("qmix", known)["seeds within 0.5"] == "1 of 1"
    seen = list(qtran.replayed([0], n_steps=50, size=2, capacity=1))
    assert len(seen) == 50
    assert all(minibatch[0, 0] == minibatch[0, 1] for minibatch in seen)  # a replay of one


def test_pursuit_table_skips_runs_that_have_a_row_and_adds_up_seeds(script, monkeypatch, tmp_path):
    table = script("pursuit_table")
    trained = []

    def train(name, task, seed, args):
        trained.append((name, task["penalty"], seed))
        return seed

    monkeypatch.setattr(table, "train", train)
    monkeypatch.setattr(table, "judge", lambda seed, task, episodes: {"return": 4.0 + 2 * seed})
    args = SimpleNamespace(
        algorithms=["vdn", "iql"], penalties=[0.0, 1.5], seeds=[0], frames=9, task=[], episodes=1
    )
    path = tmp_path / "new" / "rows.csv"
    table.run_all(args, path)
    assert trained == [("vdn", 0.0, 0), ("iql", 0.0, 0), ("vdn", 1.5, 0), ("iql", 1.5, 0)]
    args.seeds, args.algorithms, args.penalties = [0, 1], ["vdn"], [0.0]
    table.run_all(args, path)
    assert trained[4:] == [("vdn", 0.0, 1)]
    args.frames = 10
    table.run_all(args, path)
    assert len(trained) == 7  # another budget is another run
    rows = [row for row in table.read_rows(path) if row["frames"] == "9"]
    assert table.summary(rows, "return") == [
        {
            "algorithm": "vdn",
            "penalty 0": "5.00 (4.00 to 6.00)",
            "penalty 1.5": "4.00 (4.00 to 4.00)",
        },
        {
            "algorithm": "iql",
            "penalty 0": "4.00 (4.00 to 4.00)",
            "penalty 1.5": "4.00 (4.00 to 4.00)",
        },
    ]


def test_cells_that_have_a_row_are_not_run_again(script):
    runs = script("registry_runs")
    cells = [{"game": g, "seed": s, "note": "x"} for g in ("a", "b") for s in (0, 1)]
    rows = [{"game": "a", "seed": "1", "note": "y"}, {"game": "b", "seed": "0", "note": "y"}]
    left = runs.missing(cells, rows, ("game", "seed"))
    assert [(cell["game"], cell["seed"]) for cell in left] == [("a", 0), ("b", 1)]
    assert runs.over_seeds([1.0, 3.0, 2.0], 1) == "2.0 (1.0 to 3.0)"
    assert runs.over_seeds([]) == "-"


def test_tables_take_every_algorithm_with_the_kind_of_actions(script):
    from marl_td.registry import ALGORITHMS

    runs = script("registry_runs")
    assert set(runs.fitting(None, continuous=False)) <= set(ALGORITHMS)
    assert {"mappo", "qmix", "maddpg"} <= set(runs.fitting(None, continuous=False))
    assert "qmix" not in runs.fitting(["qmix", "mappo"], continuous=True)


def test_matrix_table_says_at_which_joint_action_runs_end(script):
    table = script("matrix_table")
    returns = {25 * value for row in table.CLIMBING for value in row}
    assert {275, 175, 125} <= returns
    assert table.GAMES["penalty -50"] == [[-50, 0, 10], [0, 2, 0], [10, 0, -50]]
    rows = [
        {"algorithm": "mappo", "game": "climbing", "return": value}
        for value in ("175.0", "275.0", "175.0")
    ]
    rows += [{"algorithm": "other", "game": "penalty 0", "return": "-3"}]
    assert table.summary(rows, ["climbing", "penalty 0"]) == [
        {
            "algorithm": "mappo",
            "climbing": "275 x 1, 175 x 2 (**175**)",
            "penalty 0": "- (**250**)",
        },
        {"algorithm": "other", "climbing": "-", "penalty 0": "-3 x 1"},
    ]


def test_runs_beside_benchmarl_differ_in_the_library_alone(script):
    beside = script("beside_benchmarl")
    arguments = {"tasks": ["balance"], "seeds": [0, 1], "algorithms": ["masac"], "frames": None}
    cells = list(beside.wanted(SimpleNamespace(**arguments, libraries=beside.LIBRARIES)))
    assert [(cell["library"], cell["seed"]) for cell in cells] == [
        (library, seed) for seed in (0, 1) for library in ("marl_td", "benchmarl")
    ]
    assert {cell["frames"] for cell in cells} == {beside.FRAMES["masac"]}
    for library in beside.LIBRARIES:
        masac = beside.algorithm_config(library, "masac", 0.25)
        assert masac.alpha_init == 0.25 and masac.share_param_critic
        assert not hasattr(beside.algorithm_config(library, "maddpg", 0.25), "alpha_init")


def test_a_task_beside_benchmarl_can_be_changed_and_has_no_other_settings(script):
    beside = script("beside_benchmarl")
    known = beside.task_of("transport", []).config
    assert known["package_mass"] == 50
    changed = beside.task_of("transport", ["package_mass=1"]).config
    assert changed == known | {"package_mass": 1}
    assert beside.task_of("transport", []).config == known, "others see no change"
    with pytest.raises(ValueError, match="transport has no setting mass; it has max_steps, n_age"):
        beside.task_of("transport", ["mass=1"])


def test_own_settings_are_settings_of_the_algorithm_and_only_if_asked_for(script):
    from marl_td.registry import algorithm_config

    table = script("matrix_table")
    for name, own in table.OWN.items():
        config = algorithm_config(name)
        chosen = [text.split("=")[0] for text in own.settings]
        found = [key.removeprefix("algorithm.") for key in chosen if key.startswith("algorithm.")]
        assert all(hasattr(config, key) for key in found)
        asked = SimpleNamespace(own_settings=True, on_policy_frames=7, off_policy_frames=7)
        assert table.own_of(name, asked) == own
        assert table.frames_of(name, asked) == (own.frames or 7)
        asked.own_settings = False
        assert table.own_of(name, asked) == table.Own() and table.frames_of(name, asked) == 7


def test_runs_with_own_settings_have_rows_of_their_own(script, monkeypatch, tmp_path):
    import sys

    table = script("matrix_table")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "run", lambda cell, settings: cell | {"return": settings[0]})
    monkeypatch.setattr(table, "summary", lambda rows, games: rows)
    arguments = ["--games", "climbing", "--algorithms", "hasac", "--seeds", "0"]
    for chosen in (["--set", "x=1"], ["--own-settings"]):
        monkeypatch.setattr(sys, "argv", ["matrix_table", *arguments, *chosen])
        table.main()
    (row,) = table.read_rows(tmp_path / "matrix_table.csv")
    (own,) = table.read_rows(tmp_path / "matrix_table_own.csv")
    assert (row["return"], own["return"]) == ("x=1", "algorithm.alpha_init=1.0")


def test_a_matrix_run_is_trained_judged_and_resumed(script, monkeypatch, tmp_path):
    import sys

    table = script("matrix_table")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    short = ["experiment.off_policy_n_envs_per_worker=2", "model.num_cells=[4]"]
    short += ["experiment.off_policy_collected_frames_per_batch=50"]
    short += ["experiment.off_policy_n_optimizer_steps=1"]
    arguments = ["--games", "climbing", "--algorithms", "vdn", "--seeds", "0", "--set", *short]
    monkeypatch.setattr(sys, "argv", ["matrix_table", *arguments, "--off-policy-frames", "50"])
    table.main()
    (row,) = table.read_rows(tmp_path / "matrix_table.csv")
    assert float(row["return"]) % 25 == 0 and row["frames"] == "50"
    monkeypatch.setattr(table, "run", lambda *_: pytest.fail("it is there already"))
    table.main()
    text = (tmp_path / "matrix_table.md").read_text()
    assert text.splitlines()[-1].startswith(f"| vdn | {float(row['return']):g} x 1")


def matches(script_tables, table):
    """Matches of players in groups "x" (first) and "y", who gets the opposite."""
    rows = [
        {"first": a, "second": b, "first return": v, "first +-": 1, "second return": -v}
        | {"second +-": 1}
        for (a, b), v in table.items()
    ]
    return script_tables.matches_of(rows, ["x", "y"])


def test_teams_are_judged_by_the_opponents_of_other_runs(script):
    tables = script("match_tables")
    names = ["random", "by rule", "mappo 0", "mappo 1", "qmix 0"]
    value = {(a, b): 10.0 * i + j for i, a in enumerate(names) for j, b in enumerate(names)}
    found = matches(tables, value)
    rows = {row["team of"]: row for row in tables.strength_table(found, "x")}
    assert list(rows) == ["qmix", "mappo", "by rule", "random"]
    assert rows["mappo"]["return of x"] == "28.25 (23.50 to 33.00)"  # 23, 24 and 32, 34
    assert rows["qmix"]["return of x"] == "42.50 (42.50 to 42.50)"  # 42, 43
    assert rows["mappo"]["against random"] == "25.00 (20.00 to 30.00)"
    (line,) = [row for row in tables.matrix(found, "x") if row["x of"] == "mappo"]
    assert line == {"x of": "mappo", "random": "25.0", "by rule": "26.0", "mappo": "27.5"} | {
        "qmix": "29.0"
    }
    (line,) = [row for row in tables.matrix(found, "y") if row["y of"] == "qmix"]
    assert line["mappo"] == "-29.0" and line["qmix"] == "-"
    assert tables.algorithm_of("cw_qmix 12") == "cw_qmix"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_particle_table_trains_meets_and_resumes(script, monkeypatch, tmp_path):
    import sys

    table = script("particle_table")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    short = ["experiment.compile=off", "model.num_cells=[4]", "critic_model.num_cells=[4]"]
    short += [f"experiment.off_policy_{name}" for name in ("n_envs_per_worker=2",)]
    short += ["experiment.off_policy_collected_frames_per_batch=50"]
    short += ["experiment.off_policy_n_optimizer_steps=1"]
    options = ["--algorithms", "vdn", "iql", "--off-policy-frames", "50", "--episodes", "2"]
    options += ["--match-episodes", "2", "--runs", str(tmp_path / "runs"), "--set", *short]

    def run(*tasks, seeds=("0",)):
        chosen = ["--tasks", *tasks, "--seeds", *seeds]
        monkeypatch.setattr(sys, "argv", ["particle_table", *chosen, *options])
        table.main()
        rows = [table.read_rows(tmp_path / f"particle_table{s}.csv") for s in ("", "_matches")]
        return *rows, [(tmp_path / f"particle_table_{task}.md").read_text() for task in tasks]

    rows, matches, texts = run("simple_speaker_listener", "simple_tag")
    assert [(row["task"], row["algorithm"]) for row in rows] == [
        (task, name)
        for task in ("simple_speaker_listener", "simple_tag")
        for name in ("vdn", "iql")
    ]
    assert len(matches) == 4 * 4  # vdn, iql, random, by rule
    assert "| vdn | -" in texts[0] and "| deaf | -" in texts[0]
    assert "simple_tag, adversary: by row" in texts[1] and "| by rule | -" in texts[1]
    monkeypatch.setattr(table, "train_into", lambda *_: pytest.fail("it is there already"))
    again, matches_again, same = run("simple_speaker_listener", "simple_tag")
    assert (again, matches_again, same) == (rows, matches, texts)


def test_best_response_names_the_rules_there_are(script):
    command = script("best_response")
    env = make_env("pong", 1)
    run = SimpleNamespace(env=env)
    player = command.frozen_player(run, "striker")
    assert player.name == "striker" and set(player.policies) == {"left", "right"}
    with pytest.raises(ValueError, match=r"no rule 'stricker'; the task has tracker, .*striker"):
        command.frozen_player(run, "stricker")
