"""Who carries out an audit: this process, or workers on Ray that each hold its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from somatlas.attacks.attack_registry import ATTACKS
from somatlas.audits.audit_plan import Plan
from somatlas.audits.bench import Held, Means
from somatlas.errors import InputError
from somatlas.fleet import Fleet, InPlace
from somatlas.fleet.ray_cluster import Cluster
from somatlas.judges.registry import Judges, is_asked_by_driver
from somatlas.models.language_model import LanguageModel
from somatlas.runs.folder import Run
from somatlas.runs.settings import Config
from somatlas.runs.workforce import Job, cluster_of, job_of, on_ray, take_up, weights_name

_WORK = "work"  # folder, of what attacks made at a price


@dataclass(frozen=True)
class AuditJob:
    """What a worker must know to hold an audit's models, by role."""

    jobs: Mapping[str, Job]
    means: Means


def in_place(models: Mapping[str, LanguageModel], means: Means, judges: Judges) -> Fleet[Held]:
    """This process, with models by role."""
    return InPlace(Held(models, means, judges, means.folder / _WORK))


def make_audit_fleet(runs: Mapping[str, Run], means: Means) -> Fleet[Held]:
    """What the runs' settings ask for. runs : by role, of which one has each model's settings."""
    run = runs["model"]
    if not on_ray(run.config):
        return in_place({role: one.lm for role, one in runs.items()}, means, run.judges)
    from somatlas.fleet.ray_fleet import RayFleet
    from somatlas.fleet.ray_worker import Holding

    cluster = cluster_of(run.config)
    job = audit_job(runs, means, cluster)
    return RayFleet(cluster, Holding(hold, weights_of), job, run.config.piece_timeout)


def audit_job(runs: Mapping[str, Run], means: Means, cluster: Cluster) -> AuditJob:
    """What the workers are told."""
    return AuditJob({role: job_of(run, cluster) for role, run in runs.items()}, means)


def hold(job: AuditJob, _before: Held | None) -> Held:
    """What a worker holds: every model, and judges but for those that the driver asks.

    What attacks made at a price is kept where the worker sees the audit's folder, so that no other
    makes it again. Raises InputError as `somatlas.runs.workforce.take_up` does.
    """
    runs = {role: take_up(one, None) for role, one in job.jobs.items()}
    folder = job.means.folder / _WORK if _sees(job.means) else None
    return Held(
        {role: run.lm for role, run in runs.items()},
        job.means,
        runs["model"].judges,
        folder,
        is_driver=False,
        weights=" ".join(f"{role} {weights_name(run)}" for role, run in runs.items()),
    )


def weights_of(held: Held) -> str | None:
    """What two workers must agree in: the digests of their models' weights."""
    return held.weights


def check_learning(config: Config, plan: Plan) -> None:
    """Raise InputError where workers would have to ask a judge that the driver alone asks."""
    trains = plan.relearn and any(ATTACKS.get(name).needs_consent for name in plan.attacks)
    if trains and on_ray(config) and is_asked_by_driver(plan.judge):
        raise InputError(
            f"with --relearn a model learns from what judge {plan.judge} finds compliant, and only "
            "one process asks that judge: leave out --ray, --workers and --gpus-per-worker, or "
            "take another --judge"
        )


def _sees(means: Means) -> bool:
    """Whether this machine has the audit's folder, and not another of its name."""
    try:
        found = Plan.read_if_there(means.folder)
    except InputError:
        return False
    return found is not None and found.sha256 == means.plan.sha256
