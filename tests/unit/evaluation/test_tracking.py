from components.evaluation.scores import Figure, JudgeFigures
from components.evaluation.tracking import figure_metrics


def test_metrics_have_plain_names_and_leave_out_what_was_not_measured():
    row = {
        "generated": Figure(mean=0.5, interval=(0.4, 0.6), people=3),
        "ceiling": Figure(mean=None, interval=None, people=0),
    }
    table = JudgeFigures(
        judge="identity",
        rows={"all": row, "group: Søør A": row},
        largest_gap=0.2,
        ceiling_retrieval_top1=None,
    )
    assert figure_metrics([table]) == {
        "evaluate.identity.generated": 0.5,
        "evaluate.identity.generated_low": 0.4,
        "evaluate.identity.generated_high": 0.6,
        "evaluate.identity.group.S__r_A.generated": 0.5,
        "evaluate.identity.largest_gap": 0.2,
    }
