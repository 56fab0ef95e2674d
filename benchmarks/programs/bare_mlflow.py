"""MLflow without a server: python bare_mlflow.py FOLDER prints the model's answer to one row."""

import json
import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
row = json.loads(Path(sys.argv[1]).with_suffix(".json").read_text())["row"]
frame = pd.DataFrame(
    [row], columns=model.metadata.get_input_schema().input_names(), dtype="float64"
)
print(float(np.asarray(model.predict(frame)).ravel()[0]))
