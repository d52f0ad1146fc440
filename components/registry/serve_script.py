"""The file that MLflow stores as the model (models from code); everything else is imported."""

import mlflow

from components.registry.served import PhotoVerseService

mlflow.models.set_model(PhotoVerseService())
