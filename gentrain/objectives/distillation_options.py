"""Options of distillation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gentrain.options.schema import expect, option
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run

SEQUENCE = {"level": ("sequence",)}
DRAWN = ("k1_score", "k2", "k3_forward_kl")  # of the tokens of the student's own sequences
OF_DRAWN = (*DRAWN, "top_k_plus_score")
TOP = ("tail_bucket", "top_k_plus_score", "truncated", "renormalised")


@dataclass(frozen=True)
class Options(ObjectiveSection):
    shared = ("real_prior",)
    has_teacher = True
    networks: ClassVar[dict[str, str]] = {"model": "model", "teacher": "sequences"}

    level: str = option(
        "token",
        "what is between teacher and student: 'token', the mean over prefixes of the divergence of their conditionals;"
        " 'sequence', that of whole sequences, whose gradient also goes through the student's own prefixes",
        choices=("token", "sequence"),
    )
    prefixes: str = option(
        "student",
        "whose sequences the prefixes are of: 'data', 'student', 'teacher', or 'mixed', the student's with probability"
        " student_share a row and else the data's; a sequence's own gradient needs 'student'",
        choices=("data", "student", "teacher", "mixed"),
    )
    student_share: float = option(
        0.5, "at the last step; the probability that a row is the student's own", within="[0, 1]",
        when={"prefixes": ("mixed",)},
    )  # fmt: skip
    share_schedule: str = option(
        "constant", "student_share by step: 'linear' rises to it from 0", choices=("constant", "linear"),
        when={"prefixes": ("mixed",)},
    )  # fmt: skip
    prompt: int = option(0, "tokens of the data that a sequence begins with, and that are not learned")
    teachers: int = option(
        1,
        "frozen players 'teacher', 'teacher_2', …, of the shape of section teacher, each of which init_from gives",
        within="[1, 100]",
    )
    teachers_by: str = option(
        "mean",
        "what several teach: 'mean', the mean of their laws at each prefix; 'source', for each row the law of one, by"
        " the source of a mixture that the row is from, in the order of both",
        choices=("mean", "source"),
    )
    teacher_temperature: float = option(1.0, "divides the teacher's logits", within="(0, inf)")
    student_temperature: float = option(
        1.0,
        "divides the student's logits in the divergence, not where it draws",
        within="(0, inf)",
        when={"level": ("token",)},
    )
    estimator: str = option(
        "exact",
        "of the token divergence: 'exact', a sum over the vocabulary; or one of those of token_estimators.py, of what"
        " was drawn or of the teacher's top_k tokens, named by where they end",
        when={"level": ("token",)},
    )
    top_k: int = option(
        0, "the teacher's likeliest tokens that an estimator sums over", when={"estimator": TOP, "level": ("token",)}
    )
    teacher_share: float = option(
        0.0,
        "share of the teacher's law in that from which a student's sequence is drawn, token by token",
        within="[0, 1)",
        when=SEQUENCE,
    )
    updates: int = option(
        1, "of the student in one step, by the sequences that it drew at the step's beginning", within="[1, inf)"
    )
    importance: str = option(
        "token",
        "weight of what another law has drawn than the student's, by teacher_share or earlier updates: 'token', q /"
        " drawn from, of each token alone (MiniLLM); 'prefix', of all tokens up to it, which is unbiased; 'none'",
        choices=("token", "prefix", "none"),
    )
    clip: float = option(
        0.0,
        "how far from 1 a token's q / drawn from may go in its own favour in what later tokens add (PPO); 0: any way",
        within="[0, 1)",
        when={"importance": ("token",), **SEQUENCE},
    )
    baseline: str = option(
        "none",
        "what is subtracted from what later tokens add: 'leave_one_out', its mean over the other rows; 'none'",
        choices=("none", "leave_one_out"),
        when=SEQUENCE,
    )
    long_term: str = option(
        "sum",
        "what later tokens add to the gradient of each: 'sum', exact; 'mean', over the tokens that are left, which"
        " favours no length; 'none'",
        choices=("sum", "mean", "none"),
        when=SEQUENCE,
    )
    likelihood: float = option(
        0.0,
        "share of the loss that is the negative log-likelihood of the data, the rest being the divergence; at 1 the"
        " teacher is not asked",
        within="[0, 1]",
    )
    preflight: float = option(
        0.01,
        "nats by which the teacher's answers for a token of the first batch may differ, side by side, step by step, on"
        " one device and as they were written down, before a run is refused; 0: they are not compared. Sound ones"
        " differed by 5e-6 (Transformer, LSTM of characters) to 5e-5 (SmolLM2-135M), but in bfloat16 by 0.005 and 0.3:"
        " set 1 there, and where float32 matmuls are rounded, as on TPUs",
        may_change=True,
    )

    def check(self, run: "Run", where: str) -> None:
        makes, pi, taught = run.model.makes, self.real_prior, run.config.data.taught
        expect(makes == "sequences", "model.name", run.model.name, f"a model of sequences for {where}, as 'lstm'")
        rows = f"'data' with data.taught={taught!r}: a teacher that was asked before knows no other sequences"
        expect(not taught or self.prefixes == "data", f"{where}.prefixes", self.prefixes, rows)
        estimators = ("exact", *DRAWN, *TOP)
        why = (
            "; as a reward, k3 descends KL[Q||P] - KL[P||Q], which has no least value" if "k3" in self.estimator else ""
        )
        one_of = f"one of {', '.join(estimators)}{why}"
        expect(self.estimator in estimators, f"{where}.estimator", self.estimator, one_of)
        if self.level == "token" and self.estimator != "exact":
            end = 0.0 if self.estimator == "k3_forward_kl" else 1.0
            expect(pi == end, "objective.real_prior", pi, f"{end:g} with estimator={self.estimator!r}")
            draws = self.estimator in OF_DRAWN
            own = f"'student' with estimator={self.estimator!r}, which is of what the student draws"
            expect(not draws or self.prefixes == "student", f"{where}.prefixes", self.prefixes, own)
            top = self.estimator not in TOP or self.top_k > 0
            expect(top, f"{where}.top_k", self.top_k, f"1 or more with estimator={self.estimator!r}")
        several = f"'mean' with {where}.teachers=1"
        expect(self.teachers > 1 or self.teachers_by == "mean", f"{where}.teachers_by", self.teachers_by, several)
        if self.teachers > 1:
            one = f"nothing that is drawn from the teacher with {where}.teachers={self.teachers}"
            expect(self.prefixes != "teacher", f"{where}.prefixes", self.prefixes, one)
            expect(self.teacher_share == 0, f"{where}.teacher_share", self.teacher_share, one)
        foreign = self.updates > 1 or self.teacher_share > 0
        draws_others = f"'token' with {where}.updates=1 and {where}.teacher_share=0, where the student itself draws"
        expect(foreign or self.importance == "token", f"{where}.importance", self.importance, draws_others)
        expect(foreign or self.clip == 0, f"{where}.clip", self.clip, draws_others.replace("'token'", "0"))
        own = f"'student' with {where}.updates={self.updates}"
        expect(self.updates == 1 or self.prefixes == "student", f"{where}.prefixes", self.prefixes, own)
        if self.level == "sequence":
            own = "'student' with level='sequence'"
            expect(self.prefixes == "student", f"{where}.prefixes", self.prefixes, own)
            towards = "above 0 with level='sequence': at 0 it is level='token' on prefixes='data'"
            expect(pi > 0, "objective.real_prior", pi, towards)
