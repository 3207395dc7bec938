"""Class map -> response body: JSON, PNG, overlay, RLE, polygons, ZIP or multipart."""
