import json
import platform
import socket

import pytest

from kdas_edge import environment


def test_features_are_read_from_the_flags_of_x86_and_arm():
    x86 = environment.cpu_features(["flags\t: fpu avx2 avx512f avx512_vnni avx512_bf16"])
    assert x86["vnni"] and x86["avx512_bf16"] and not x86["amx_int8"]
    arm = environment.cpu_features(["Features\t: fp asimd asimddp i8mm"])
    assert arm["arm_dotprod"] and arm["arm_i8mm"] and not arm["vnni"]


def test_a_system_that_tells_nothing_gives_none_instead_of_no():
    assert set(environment.cpu_features([]).values()) == {None}


def test_the_record_is_json_and_names_neither_host_nor_user():
    text = json.dumps(environment.describe())
    assert platform.python_version() in text
    host = socket.gethostname()
    assert len(host) < 4 or host not in text


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        # version 2, seen from within a container and from outside
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/../other\n", {"cpu.max": "50000 100000"}, 0.5),
        # version 1
        (
            "4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n",
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ("2:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
        ("nonsense\n::\n", {"cpu.max": "damaged"}, None),
    ],
)
def test_a_quota_is_read_from_both_versions_of_control_groups(tmp_path, membership, files, quota):
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "cgroup").write_text(membership)
    assert environment.cpu_quota(tmp_path / "mount", tmp_path / "cgroup") == quota


def test_threads_follow_a_quota_and_only_a_quota(monkeypatch):
    monkeypatch.setattr(environment, "_bound_cpus", lambda: 16)
    for quota, usable, limit in (
        (None, 16, None), (2.5, 2, 2), (0.5, 1, 1), (16.0, 16, None), (99.0, 16, None),
    ):  # fmt: skip
        monkeypatch.setattr(environment, "cpu_quota", lambda quota=quota: quota)
        assert (environment.usable_cpus(), environment.thread_limit()) == (usable, limit)


def test_a_user_without_home_is_no_error(monkeypatch):
    from kdas_edge.doctor.tuning import cache_folder, model_cache

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert environment.home_folder() is None
    assert model_cache(cache_folder()).found
