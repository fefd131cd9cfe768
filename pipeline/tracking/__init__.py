"""MLflow, imported only here and by `infra.local.ui`; its settings must be made before it is used."""

import os

for _name, _value in {  # a dead server must not delay anything for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # with passwords on, a busy server takes seconds
    "MLFLOW_DISABLE_ENV_MANAGER_CONDA_WARNING": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)
