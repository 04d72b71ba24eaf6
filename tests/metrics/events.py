"""One short run's events, for every test that needs a run to listen to."""

from dtrain.metrics.reporter import Display, Output, PhaseSeconds, Reporter, Score, Snapshot, Start, Step

START = Start("LeNet", "SGD", "inv", 0, 200, ranks=2, global_batch=128)
PHASES = PhaseSeconds(0.0001, 0.002, 0.003, 0.0002, 0.0004)


def short_run(report: Reporter) -> None:
    """200 iterations as a solver would tell them: tests at 0 and 200, displays at 0 and 100."""
    report.start(START)
    for iteration in range(200):
        if iteration == 0:
            report.testing(0, 0)
            report.test(Score(0, 0, [Output("accuracy", 0.0925), Output("loss", 2.3456789, 1.0)], 0.5))
        if iteration % 100 == 0:
            outputs = [Output("loss", 2.25 - iteration / 100, 1.0)]
            report.display(Display(iteration, 2.25 - iteration / 100, 0.01, iteration, 8.125, 100, outputs))
        report.step(Step(iteration + 1, 64, PHASES))
    report.snapshot(Snapshot(200, "runs/lenet_iter_200.caffemodel"))
    report.snapshot(Snapshot(200, "runs/lenet_iter_200.solverstate", "solver state"))
    report.snapshot_done(200, 0.02)
    report.final_loss(200, 0.25)
    report.testing(200, 0)
    report.test(Score(200, 0, [Output("accuracy", 0.9914), Output("loss", 0.0285, 1.0)], 0.5))
    report.done()
