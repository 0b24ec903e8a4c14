"""The prepared dataset of a version."""

from pathlib import Path

from pixelmill.pipeline.artifacts import verify_files
from pixelmill.pipeline.bundles import ModelBundle, read_bundle_manifest
from pixelmill.pipeline.datasets import PreparedDataset, read_prepared


def find_dataset(store: Path, bundle: ModelBundle) -> PreparedDataset | None:
    """The prepared dataset on which a bundle's model was trained, or None if the local store lacks it.

    Raises:
        WorkError: The dataset's files are damaged.
    """
    manifest = read_bundle_manifest(bundle.folder)
    for folder, found in read_prepared(store).items():
        same_data = found["fingerprint"] == manifest.get("dataset_fingerprint")
        if same_data and found["image"] == bundle.image_spec().preprocessing():
            dataset = PreparedDataset.from_manifest(folder, verify_files(folder))
            if dataset.tensors().is_complete(found["segments"]):
                return dataset
    return None
