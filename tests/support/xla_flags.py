"""XLA's flags of every test and of the processes that tests start."""


def xla_flags(devices: int) -> str:
  """`devices` simulated CPU devices, and a compiler that does not optimise.

  Most of the suite's time is the compilation of programs that run for moments. LLVM's
  optimisation is off; then XLA's newer emitters of fused loops, which lower through MLIR,
  are two thirds of what is left (docs/performance.md). Programs are not split for threads,
  which every core's own worker leaves idle: a sixth less. All flags are known to the jaxlib
  versions of setup.cfg: a jaxlib that does not know one ends the process with its name.
  """
  return (
    f'--xla_force_host_platform_device_count={devices} '
    '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false '
    '--xla_cpu_parallel_codegen_split_count=1'
  )
