import json
import platform
import socket

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
