"""Triton kernels without a GPU: run on CPU tensors by Triton's interpreter, or compiled for a GPU that is not there."""
import contextlib
import dataclasses
import importlib
import re
import subprocess
import tempfile
import typing as tp
from types import ModuleType
from unittest import mock

#: Modules with kernels and the functions that they call.
_MODULES = ("triton_fill", "triton_layers", "triton_products", "triton_remask", "triton_step")


@contextlib.contextmanager
def interpreted() -> tp.Iterator[None]:
    """Have kernels of the engine run in Triton's interpreter, as `TRITON_INTERPRET=1` does if it is set before the import.

    All functions that Triton would compile, its own library's included, are replaced by interpreted ones and put back at the
    end, together with everything that the interpreter changes in Triton's modules. Other tests are not affected.
    """
    import triton.language as tl
    from triton import knobs
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction
    ours: list[ModuleType] = [importlib.import_module(f"magnet_plugin.engine.{name}") for name in _MODULES]
    changed: list[tp.Any] = [*ours, tl, tl.core, tl.math, tl.standard, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base]
    before = [dict(vars(namespace)) for namespace in changed]
    with knobs.runtime.scope(), _mended_interpreter():
        knobs.runtime.interpret = True
        try:
            for namespace in changed:
                for name, value in list(vars(namespace).items()):
                    if isinstance(value, JITFunction):
                        setattr(namespace, name, InterpretedFunction(value.fn))
            yield
        finally:
            InterpretedFunction.rewritten_fn.clear()        # They refer to names that are removed below.
            for namespace, names in zip(changed, before, strict=True):
                _restore(namespace, names)


@contextlib.contextmanager
def _mended_interpreter() -> tp.Iterator[None]:
    """Mend the interpreter of Triton 3.6.

    It cannot loop over a range that is an argument (with NumPy 2.4) nor multiply bfloat16, and loses the carry where
    rounding to float8 gives the next power of two.
    """
    import torch
    import triton.language as tl
    from triton.runtime import interpreter
    multiply, patch_tensor = interpreter.InterpreterBuilder.create_dot, interpreter._patch_lang_tensor
    convert = interpreter._convert_float

    def widened(x: tp.Any) -> tp.Any:
        return interpreter.interpreter_builder.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x

    def create_dot(self: tp.Any, a: tp.Any, b: tp.Any, *args: tp.Any) -> tp.Any:
        return multiply(self, widened(a), widened(b), *args)

    def patch_lang_tensor(tensor: tp.Any, scope: tp.Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def convert_float(values: tp.Any, source: tp.Any, target: tp.Any, rounding: tp.Any) -> tp.Any:
        if (source, target) != (tl.float32, tl.float8e4nv):
            return convert(values, source, target, rounding)
        return torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()

    with mock.patch.object(interpreter.InterpreterBuilder, "create_dot", create_dot), \
            mock.patch.object(interpreter, "_convert_float", convert_float), \
            mock.patch.object(interpreter, "_patch_lang_tensor", patch_lang_tensor):
        yield


def _restore(namespace: tp.Any, names: dict[str, tp.Any]) -> None:
    for name, value in list(vars(namespace).items()):
        if name not in names:
            delattr(namespace, name)
        elif value is not names[name]:
            setattr(namespace, name, names[name])


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel and the arguments that it was launched with."""
    kernel: tp.Any
    arguments: dict[str, tp.Any]
    options: dict[str, tp.Any]

    @property
    def name(self) -> str:
        return self.kernel.__name__


@contextlib.contextmanager
def recorded(module: ModuleType, *kernels: str, into: tp.Optional[list[Launch]] = None) -> tp.Iterator[list[Launch]]:
    """Record the launches of a module's kernels, in a new list or `into` one, instead of running them."""
    launches: list[Launch] = [] if into is None else into

    class Recorder:
        def __init__(self, kernel: tp.Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> tp.Callable[..., None]:
            def launch(*args: tp.Any, **kwargs: tp.Any) -> None:
                arguments = dict(zip(self.kernel.arg_names, args))
                names = set(self.kernel.arg_names)
                arguments |= {name: value for name, value in kwargs.items() if name in names}
                assert set(arguments) == names
                launches.append(Launch(self.kernel, arguments, {n: v for n, v in kwargs.items() if n not in names}))

            return launch

    before = {name: getattr(module, name) for name in kernels}
    try:
        for name, kernel in before.items():
            setattr(module, name, Recorder(kernel))
        yield launches
    finally:
        for name, kernel in before.items():
            setattr(module, name, kernel)


@dataclasses.dataclass(frozen=True)
class Usage:
    """Registers per thread, bytes spilled per thread, and bytes of shared memory."""
    registers: int
    spilled: int
    shared: int


def compiled(launch: Launch, capability: int) -> Usage:
    """Compile a kernel as it was launched, for a GPU of this compute capability (90 for Hopper).

    As in a launch, pointers and whole numbers are known to be divisible by 16 where they are.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import mangle_type
    signature, constants, attributes = {}, {}, {}
    for position, (name, parameter) in enumerate(zip(launch.kernel.arg_names, launch.kernel.params, strict=True)):
        value = launch.arguments[name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[(position,)] = "constexpr", value
        else:
            signature[name] = mangle_type(value)
            if hasattr(value, "data_ptr") or isinstance(value, int) and value % 16 == 0:
                attributes[(position,)] = [["tt.divisibility", 16]]
    source, target = ASTSource(launch.kernel, signature, constants, attributes), GPUTarget("cuda", capability, 32)
    built = triton.compile(source, target=target, options=launch.options)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(built.asm["ptx"])
        file.flush()
        arch = f"sm_{capability}{'a' if capability >= 90 else ''}"
        text = subprocess.run([triton.knobs.nvidia.ptxas.path, "-v", f"--gpu-name={arch}", file.name, "-o", "/dev/null"],
                              capture_output=True, text=True, check=True).stderr
    registers, spills = re.search(r"Used (\d+) registers", text), re.findall(r"(\d+) bytes spill", text)
    assert registers is not None and spills, text
    return Usage(int(registers[1]), max(map(int, spills)), built.metadata.shared)


@contextlib.contextmanager
def recorded_kernels() -> tp.Iterator[list[Launch]]:
    """Record the launches of all Triton kernels of a step."""
    from magnet_plugin.engine import triton_layers, triton_products, triton_step
    with recorded(triton_step, "fill_kernel", "remask_kernel") as launches, \
            recorded(triton_layers, "add_norm_kernel", "embed_kernel", into=launches), \
            recorded(triton_products, "linear_kernel", "text_attention_kernel", into=launches):
        yield launches
