"""Arm Ethos-U: what Arm's compiler Vela makes of a file and estimates for it.

A file is compiled in a child process, which may be ended by it without taking the search along. Vela's estimate covers
the NPU and the memories that its system configuration names; operators that stay on the CPU cost nothing in it and are
named. Nothing here is measured."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError, CandidateError, unknown_name
from autocompress.latency.source import Latency
from autocompress.network.tflite.isolated import Isolated
from autocompress.records.measurement import Compilation, Measurement
from autocompress.specs.device import ETHOS_U, CompilerTarget, DeviceProfile

PACKAGE, EXTRA = "ethos-u-vela", "autocompress[ethos-u]"
# As the compiler's command line sets them; the database says which operators run on the NPU.
_OPTIONS = """
[compiler]
enable_db=true
output_format=TFLite
cop_format=COP1
[scheduler]
optimize=Performance
arena_size_limit={arena_bytes}
disable_feature=
cpu_tensor_alignment=16
tensor_allocator=HillClimb
[graph]
softmax_int16_neg_exp_range=10.0
"""
_SECTION = r"(?ms)^\[{}\.{}\]$(.*?)(?=^\[|\Z)"


def vela_latency(profile: DeviceProfile) -> Latency:
    """The latency of a file by Vela's estimate for a profile with a compiler target; the number of processes does not
    matter, the compiler is deterministic.

    AutocompressError where the compiler is not installed, is another version than the profile's, or does not know the
    profile's system configuration or memory mode; CandidateError for a file that it refuses or leaves to the CPU."""
    target = profile.compiler
    assert target is not None
    _check_installed(target)
    settings, clock_hz = _settings(target)
    compiled = Isolated(_compile)
    architecture, options = ETHOS_U[target.accelerator][0], _OPTIONS.format(arena_bytes=target.arena_bytes)

    def latency(file: bytes, _: int) -> Measurement:
        return _measurement(compiled(architecture, file, settings, options), target, clock_hz)

    return latency


def _check_installed(target: CompilerTarget) -> None:
    if importlib.util.find_spec("ethosu") is None:
        raise AutocompressError(f"the compiler {PACKAGE} is not installed; run: pip install '{EXTRA}'")
    version = metadata.version(PACKAGE)
    if version != target.version:
        raise AutocompressError(
            f"{PACKAGE} {version} is installed, the profile's figures are of {target.version}; run: pip install "
            f"'{PACKAGE}=={target.version}', or say version: \"{version}\" in a copy of the profile"
        )


@cache
def _configurations() -> str:
    """Arm's own system configurations and memory modes, as the package brings them."""
    found = importlib.util.find_spec("ethosu")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0])
    return (folder / "config_files" / "Arm" / "vela.ini").read_text(encoding="utf-8")


def _settings(target: CompilerTarget) -> tuple[str, float]:
    """The architecture as the compiler reads it, and the NPU's clock in Hz."""
    _named("Memory_Mode", target.memory_mode)
    system = _named("System_Config", target.system_config)
    _, macs, cores = ETHOS_U[target.accelerator]
    clock = re.search(r"(?m)^core_clock=(\S+)", system)
    assert clock is not None
    head = f"[architecture]\nmacs={macs}\ncores={cores}\n[vela]\n"
    names = f"system_config_name={target.system_config}\nmemory_mode_name={target.memory_mode}\n"
    return head + names + _configurations(), float(clock[1])


def _named(kind: str, name: str) -> str:
    """The lines of a section of the configurations."""
    found = re.search(_SECTION.format(kind, re.escape(name)), _configurations())
    if found is None:
        known = re.findall(rf"(?m)^\[{kind}\.(.+)\]$", _configurations())
        raise unknown_name(kind.lower().replace("_", " "), name, known)
    return found[1]


def _compile(architecture: str, file: bytes, settings: str, options: str) -> Mapping[str, Any]:
    """What the compiler reports, as plain data (runs in the child)."""
    from ethosu import regor

    try:
        made = regor.compile(architecture, file, "TFLITE", settings, options=options)
    except Exception as fault:  # whatever its binding raises for a file that it refuses
        raise CandidateError(f"Vela refuses the file: {_first_line(fault)}") from fault
    report = made.perf_report
    return {
        "cycles": report.totalCycles,
        "npu_cycles": report.npuCycles,
        "npu_ops": report.npuOps,
        "cpu_ops": report.cpuOps,
        "flash_bytes": report.readOnlyPeakUsage,
        "memories": {str(name): each.peakUsage for name, each in report.memories.items()},
        "on_cpu": _on_cpu(made.opt_database.tables),
    }


def _first_line(fault: Exception) -> str:
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return lines[0] if lines else type(fault).__name__


def _on_cpu(tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The operators of the file that no command of the NPU, nor a group fused with one, stands for."""
    queued = {row["optimised_id"] for row in _rows(tables["queue"])}
    fused = {row["id"] for row in _rows(tables["group"])}
    names = {row["id"]: row["operator"] for row in _rows(tables["source"])}
    rows = _rows(tables["perf"])
    left = [row for row in rows if row["optimised_id"] not in queued and row["id"] not in fused]
    return tuple(str(names.get(row["source_id"], row["operator"])) for row in left)


def _rows(table: Any) -> Iterable[dict[str, Any]]:
    return [dict(zip(table.header, row, strict=True)) for row in table.data]


def _measurement(report: Mapping[str, Any], target: CompilerTarget, clock_hz: float) -> Measurement:
    if not report["npu_ops"]:
        counted = ", ".join(f"{n} {name}" for name, n in sorted(Counter(report["on_cpu"]).items()))
        raise CandidateError(f"Vela gives the NPU no operator of this file; all stay on the CPU ({counted})")
    return Measurement(
        latency_ms=report["cycles"] / clock_hz * 1e3,
        latency_source="compiled",
        runtime=PACKAGE,
        runtime_version=target.version,
        flash_bytes=report["flash_bytes"],
        ram_bytes=_ram_bytes(report["memories"], report["flash_bytes"]),
        compilation=Compilation(
            accelerator=target.accelerator,
            system_config=target.system_config,
            memory_mode=target.memory_mode,
            cycles=report["cycles"],
            npu_cycles=report["npu_cycles"],
            clock_mhz=clock_hz / 1e6,
            npu_ops=report["npu_ops"],
            on_cpu=tuple(report["on_cpu"]),
        ),
    )


def _ram_bytes(memories: Mapping[str, int], read_only_bytes: int) -> int:
    """What the arena takes of SRAM and DRAM at most; weights that lie in DRAM are counted as read-only memory."""
    sizes = {name.lower(): size for name, size in memories.items()}
    return int(sizes.get("sram", 0) + max(0, sizes.get("dram", 0) - read_only_bytes))
