"""Class map to JSON, PNG, overlays, RLE, polygons and archives."""
