"""Dockerfile, compose file, Kubernetes examples: what they promise, and that our command line takes what they say."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from hookline.cli.train import parse_arguments

ROOT = Path(__file__).parents[1]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


def instructions():
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def pods():
    for file in KUBERNETES:
        for part in yaml.safe_load_all(file.read_text("utf-8")):
            if part["kind"] == "Job":
                yield pytest.param(part, id=file.stem)


def test_the_image_takes_its_base_as_an_argument_and_runs_nothing_as_root():
    found = instructions()
    assert found[0] == ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm")
    stages = [index for index, (word, _) in enumerate(found) if word == "FROM"]
    assert [found[index][1].split()[0] for index in stages] == ["${BASE_IMAGE}"] * 2
    last = dict(found[stages[-1] :])
    assert last["USER"] == "hookline"
    assert json.loads(last["ENTRYPOINT"]) == ["hookline"]  # the exec form: no shell between us and SIGTERM
    assert not any(word in text for _, text in found[stages[-1] :] for word in ("apt-get", "pip install", "gcc"))


def test_only_what_the_wheel_is_made_of_is_sent_to_the_builder():
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in {"", "#"}]
    assert ignored[0] == "*"
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sent)
    assert {"setup.py", "pyproject.toml", "README.md", "hookline"} <= sent


def test_compose_has_a_profile_for_each_kind_of_machine():
    text = (ROOT / "docker-compose.yml").read_text("utf-8").replace("${HOOKLINE_GPUS:-1}", "3")
    services = yaml.safe_load(text)["services"]
    assert {name: service["profiles"] for name, service in services.items()} == {"cpu": ["cpu"], "gpu": ["gpu"]}
    for service in services.values():
        assert service["command"][0] == "train"
        args = parse_arguments(service["command"][1:])
        assert args.num_gpus == (3 if "deploy" in service else None)
        assert service["init"]
        assert {volume.split(":", 2)[-1] for volume in service["volumes"]} >= {"/cache"}
        assert service["stop_grace_period"] == "2m"
    (gpus,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (gpus["driver"], gpus["count"]) == ("nvidia", 3)  # as many as the command uses


@pytest.mark.parametrize("job", list(pods()))
def test_kubernetes_runs_what_the_command_line_takes(job):
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > 30
    (container,) = pod["containers"]
    words = container["args"]
    words = words[words.index("hookline.cli.train") + 1 :] if "command" in container else words[1:]
    args = parse_arguments(words)
    assert args.resume is True
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_machines_of_the_indexed_job_meet_at_the_first_pod():
    service, job = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "multi-node.yaml").read_text("utf-8"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    name = job["metadata"]["name"]
    args = dict(arg.removeprefix("--").split("=", 1) for arg in pod["containers"][0]["args"] if re.match("--.+=", arg))
    assert spec["completionMode"] == "Indexed"
    assert int(args["nnodes"]) == spec["completions"] == spec["parallelism"]
    assert args["node-rank"] == "$(JOB_COMPLETION_INDEX)"
    assert args["master-addr"] == f"{name}-0.{pod['subdomain']}"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["publishNotReadyAddresses"]
    assert int(args["master-port"]) == service["spec"]["ports"][0]["port"]
    assert args["nproc-per-node"] == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert int(args["shutdown-timeout"]) < pod["terminationGracePeriodSeconds"]


def commands_of_the_guide():
    for name in ("launch.md", "docker.md"):
        text = (ROOT / "docs" / name).read_text("utf-8").replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        for line in lines:
            for start in ("train_net.py ", "hookline train ", "cpu train ", "gpu train "):
                if start in line:
                    yield shlex.split(line.split(start, 1)[1], comments=True)


@pytest.mark.parametrize("words", list(commands_of_the_guide()), ids=" ".join)
def test_the_guide_shows_commands_that_there_are(words):
    words = words[: words.index("--")] if "--" in words else words  # behind it: HFAI's own
    assert parse_arguments(words).config_file
