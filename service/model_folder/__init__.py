"""The files that describe a model folder: model.json and engines/*.json. The contract with model_export."""
