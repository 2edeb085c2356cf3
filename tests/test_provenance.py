"""What a record says of the machine that its pictures and times are of."""

import pytest
import torch

from eval.timing import hardware_text
from spectrum.bench import provenance


@pytest.mark.parametrize(
    ("own", "most", "flags", "expected"),
    [
        ("AVX512", "", "avx2 avx512f", "AVX512"),
        ("AVX2", "", "avx2", "AVX2"),
        ("AVX2", "AVX2", "avx2 avx512f", "AVX2"),
        ("AVX2", "", "avx2 avx512f", "AVX2, oneDNN any"),
        ("AVX512", "avx2", "avx2 avx512f", "AVX512, oneDNN AVX2"),
        ("DEFAULT", "", None, "DEFAULT"),
    ],
)
def test_the_kernels_are_those_of_torch_and_of_onednn(own, most, flags, expected, monkeypatch):
    """Both limited to AVX2, a CPU with AVX-512 gives the bits of one without; one alone gives others."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: own)
    monkeypatch.setattr(provenance, "_cpu_line", lambda name: flags if name == "flags" else "A CPU")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    about, count = provenance.hardware(torch.device("cpu")), torch.get_num_threads()
    assert about["kernels"] == expected
    assert hardware_text(about) == f"A CPU ({expected}) with {count} thread{'s' * (count > 1)}"
