# The service of a trained model (docs/serving.md):
#   docker build --tag medm2t .
#   docker run --publish 127.0.0.1:8080:8080 --volume "$PWD/BUNDLE:/model:ro" medm2t
FROM python:3.12-slim AS build
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE /source/
COPY configs /source/configs
COPY data_pipeline /source/data_pipeline
COPY medm2t_jax /source/medm2t_jax
RUN python -m venv /venv
RUN /venv/bin/python -m pip install --no-cache-dir --constraint /source/constraints.txt '/source[serve]'

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 medm2t
COPY --from=build /venv /venv
USER medm2t
WORKDIR /home/medm2t
# Compiled programs are kept where the container may write.
ENV JAX_COMPILATION_CACHE_DIR=/home/medm2t/.cache/jax
EXPOSE 8080
HEALTHCHECK --start-period=120s CMD ["/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health')"]
ENTRYPOINT ["/venv/bin/python", "-m", "medm2t_jax.serve", "--model=/model", "--host=0.0.0.0"]
