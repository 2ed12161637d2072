"""XLA's flags of every test and of the processes that tests start."""


def xla_flags(devices: int) -> str:
  """`devices` simulated CPU devices, and LLVM that does not optimise.

  Most of the suite's time is the compilation of programs that run for moments.
  """
  return (
    f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
  )
