# The service for production; docs/deploy.md says how to run it.

FROM python:3.12-slim AS build
# A mirror near you: docker build --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
RUN python -m venv --without-pip /opt/wxauth
WORKDIR /source
COPY requirements.txt .
RUN pip --python /opt/wxauth/bin/python install --no-cache-dir --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY wxauth wxauth
RUN pip --python /opt/wxauth/bin/python install --no-cache-dir --no-deps .

FROM python:3.12-slim
COPY --from=build /opt/wxauth /opt/wxauth
ENV PATH=/opt/wxauth/bin:$PATH
# A number, so that Kubernetes can see that it is not root. The user needs no home and no file of its own.
USER 10001:10001
EXPOSE 8000
# Not /readyz: to restart the service does not help Redis.
HEALTHCHECK --start-period=20s --interval=30s --timeout=5s CMD ["python", "-c", \
    "import os, urllib.request as http; \
    url = 'http://127.0.0.1:' + (os.environ.get('PORT') or '8000') + '/healthz'; \
    http.build_opener(http.ProxyHandler({})).open(url, timeout=4)"]
CMD ["wxauth", "serve"]
