"""The private names of other packages that `spectrum/hooks/private_api.py` relies on, each with what we use it for.

When an upgrade moves one of them, the test named after it fails with the sentence that says where to look.
"""

import ast
import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
from toys import toy_flux

from spectrum.hooks import private_api

ROOT = Path(__file__).resolve().parent.parent
HOME = Path("spectrum/hooks/private_api.py")
PACKAGES = ("accelerate", "diffusers", "hydra", "torch", "transformers")


@dataclass(frozen=True)
class Symbol:
    """A private name of another package: where it is defined, and which part of ours stops working without it."""

    module: str
    path: str
    use: str
    kind: type | None = None

    def moved(self) -> str:
        package = self.module.partition(".")[0]
        version = importlib.metadata.version("hydra-core" if package == "hydra" else package)
        return (
            f"{package} {version} has no {self.module}.{self.path}, which {HOME} uses {self.use}: "
            f"find where that release keeps it, change {HOME}, and the lower bound of {package} in pyproject.toml"
        )


SYMBOLS = [
    Symbol("diffusers.hooks._common", "_ALL_TRANSFORMER_BLOCK_IDENTIFIERS", "to find a denoiser's block lists", tuple),
    Symbol("diffusers.hooks._common", "_ATTENTION_CLASSES", "to find the attentions for site=modules", tuple),
    Symbol("diffusers.hooks._common", "_FEEDFORWARD_CLASSES", "to find the MLPs for site=modules", tuple),
    Symbol("diffusers.hooks._helpers", "TransformerBlockRegistry.get", "to find a block's hidden states"),
    Symbol("diffusers.hooks.hooks", "HookRegistry.check_if_exists_or_initialize", "to put its hook on a module"),
    Symbol("diffusers.hooks.hooks", "HookRegistry.get_hook", "to see whether a method is on a module"),
    Symbol("diffusers.hooks.hooks", "HookRegistry.register_hook", "to put its hook on a module"),
    Symbol("diffusers.hooks.hooks", "HookRegistry.remove_hook", "to take its hook off a module"),
    Symbol("diffusers.hooks.hooks", "ModelHook._is_stateful", "to be told when a pipeline's call has ended", bool),
    Symbol("diffusers.hooks.hooks", "StateManager.set_context", "to learn the CFG branch"),
    Symbol("diffusers.models.modeling_utils", "ModelMixin._parallel_config", "to see context parallelism"),
    Symbol("diffusers.models.modeling_utils", "ModelMixin._keep_in_fp32_modules", "to build models with drawn weights"),
    Symbol("diffusers.models.modeling_utils", "ModelMixin._supports_group_offloading", "to offload in groups", bool),
    Symbol("diffusers.pipelines.pipeline_utils", "DiffusionPipeline._execution_device", "to place drawn embeddings"),
    Symbol("torch._dynamo", "OptimizedModule", "to recognise what torch.compile returned", type),
    Symbol("torch.nn", "Module._compiled_call_impl", "to wrap the call that module.compile() made"),
]
"""Names that can be looked up on a module or a class. `use` completes "which private_api.py uses"."""


@pytest.mark.fast
@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: f"{symbol.module}.{symbol.path}")
def test_a_private_symbol_is_where_we_look_for_it(symbol):
    try:
        found = importlib.import_module(symbol.module)
        for name in symbol.path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        pytest.fail(symbol.moved())
    assert symbol.kind is None or isinstance(found, symbol.kind), symbol.moved()


def moved(package: str, name: str, use: str) -> str:
    version = importlib.metadata.version(package)
    return f"{package} {version} no longer sets {name}, which {HOME} reads {use}: find what took its place"


@pytest.mark.fast
def test_a_hook_registry_lies_on_its_module():
    module = torch.nn.Linear(1, 1)
    registry = private_api.HookRegistry.check_if_exists_or_initialize(module)
    name = private_api.REGISTRY_ATTRIBUTE
    assert getattr(module, name, None) is registry, moved("diffusers", name, "to take its hook off a module")


@pytest.mark.fast
def test_a_state_manager_tells_the_branch_that_a_pipeline_set():
    manager = private_api.StateManager(lambda: None)
    sentence = moved("diffusers", "StateManager._context.name", "to learn the CFG branch")
    assert hasattr(manager, "_context"), sentence
    assert private_api.branch_name(manager) is None, sentence
    model = toy_flux().pipe.transformer
    hook = private_api.StatefulHook()
    hook.manager = manager
    private_api.HookRegistry.check_if_exists_or_initialize(model).register_hook(hook, "manager")
    with model.cache_context("uncond"):
        assert private_api.branch_name(manager) == "uncond", sentence


@pytest.mark.fast
def test_a_block_s_hidden_states_have_an_index():
    from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

    sentence = moved(
        "diffusers", "TransformerBlockMetadata.return_hidden_states_index", "for site=exit with front blocks"
    )
    assert private_api.block_output_index(FluxTransformerBlock) == 1, sentence
    assert private_api.block_output_index(torch.nn.Linear) is None, sentence


@pytest.mark.fast
def test_a_compiled_module_keeps_the_original():
    module = torch.nn.Linear(1, 1)
    sentence = moved("torch", "OptimizedModule._orig_mod", "to reach the denoiser under torch.compile")
    assert private_api.uncompiled(torch.compile(module)) is module, sentence
    assert private_api.uncompiled(module) is module


@pytest.mark.fast
def test_a_module_that_was_compiled_in_place_keeps_its_compiled_call():
    module = torch.nn.Linear(1, 1)
    assert private_api.compiled_call(module) is None
    module.compile(backend="eager")
    sentence = moved("torch", private_api.COMPILED_CALL, "to wrap the call that module.compile() made")
    assert callable(private_api.compiled_call(module)), sentence


@pytest.mark.fast
def test_submodules_are_torch_s_own_table():
    module = torch.nn.Sequential(torch.nn.Linear(1, 1))
    sentence = moved("torch", "Module._modules", "to put stand-ins in the place of block lists")
    private_api.submodules(module)["0"] = torch.nn.Identity()
    assert isinstance(module[0], torch.nn.Identity), sentence
    other = torch.nn.ModuleList()
    private_api.share_submodules(other, module)
    assert list(other) == [module[0]], sentence


@pytest.mark.fast
def test_offload_keeps_the_forward_that_it_wrapped():
    from accelerate.hooks import ModelHook, add_hook_to_module

    module = torch.nn.Linear(1, 1)
    original = module.forward
    add_hook_to_module(module, ModelHook())
    name = private_api.OFFLOADED_FORWARD
    sentence = moved("accelerate", name, "to put its hook beneath the offload's")
    assert module.__dict__.get(name) == original, sentence


@pytest.mark.fast
def test_a_denoiser_that_is_split_over_ranks_says_how():
    model = toy_flux().pipe.transformer
    assert private_api.context_parallel_config(model) is None
    split = diffusers.ContextParallelConfig(ring_degree=2)
    model._parallel_config = diffusers.ParallelConfig(context_parallel_config=split)
    sentence = moved("diffusers", "_parallel_config.context_parallel_config", "to refuse methods that decide by data")
    assert private_api.context_parallel_config(model) is split, sentence


@pytest.mark.fast
def test_parts_that_stay_in_float32_are_listed():
    kept = private_api.kept_in_float32(diffusers.WanTransformer3DModel)
    assert "norm_out" in kept or "time_embedder" in kept, moved(
        "diffusers", "_keep_in_fp32_modules", "to build models with drawn weights"
    )


@pytest.mark.fast
def test_a_pipeline_tells_its_device():
    pipe = toy_flux().pipe
    assert private_api.execution_device(pipe) == torch.device("cpu"), moved(
        "diffusers", "_execution_device", "to place drawn embeddings"
    )


def private_imports(source: str) -> list[str]:
    """The private names that a module imports from the packages, `package.module.name` each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        found += [n for n in names if n.partition(".")[0] in PACKAGES and any(map(is_private, n.split(".")))]
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_reads(source: str) -> set[str]:
    """The private attributes that a module reads of objects, and that nothing in it defines."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)]
    own = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}
    own |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    named = [
        node.args[1].value
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "setattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
    ]
    return ({node.attr for node in attributes} | {name for name in named if is_private(name)}) - own


def modules() -> list[Path]:
    return sorted(path for room in ("spectrum", "baselines", "eval") for path in (ROOT / room).rglob("*.py"))


@pytest.mark.fast
def test_private_names_are_imported_and_read_in_one_place_only():
    assert private_imports((ROOT / HOME).read_text()), "the test sees no private import where there are some"
    assert private_reads((ROOT / HOME).read_text()), "the test sees no private attribute where there are some"
    allowed = {"spectrum/bench/comparison.py": {"_return_value"}}
    found = {}
    for path in modules():
        name = path.relative_to(ROOT).as_posix()
        if name != HOME.as_posix():
            text = path.read_text()
            found[name] = {*private_imports(text), *private_reads(text)} - allowed.get(name, set())
    wrong = {name: sorted(names) for name, names in found.items() if names}
    assert not wrong, f"private names of other packages belong in {HOME}: {wrong}"


@pytest.mark.fast
def test_hydra_keeps_what_a_failed_job_raised():
    from hydra.core.utils import JobReturn

    job = JobReturn()
    job.return_value = ValueError("no")
    assert str(job._return_value) == "no", moved("hydra-core", "JobReturn._return_value", "in bench/comparison.py")


def test_what_lacks_a_private_attribute_has_nothing_of_it():
    assert private_api.context_parallel_config(torch.nn.Linear(1, 1)) is None
    assert private_api.kept_in_float32(torch.nn.Linear(1, 1)) == set()
