"""The adaptation study: methods on streams, judged online and on other patients, against the shipped model."""
