"""weights/<model>/ as data: model.json, engines/*.json. The contract with model_export."""
