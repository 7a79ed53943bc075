"""Attributes that Keras' own iterators have and shardkit's do not, each with what to use instead."""

from __future__ import annotations

from shardkit.options.keywords import no_attribute

_THREADS = "next() and flow[number] may be called from any thread"
_LISTED = "use classes=, subset= and the DataFrame or folder to choose files"
_SPLIT = (
    'split the dataset, shardkit.dataset("shards/train").split({"train": 0.8, "validation": 0.2}), and give each part '
    "to the function that made this; or use its validation_split= and subset="
)

ABSENT = {
    "index_generator": "use flow.index_array, the sample numbers of this epoch in the order of its batches",
    "lock": _THREADS,
    "white_list_formats": _LISTED,
    "allowed_class_modes": "a class_mode that is not known is refused with those that are",
    "filepaths": "images in shards or arrays have no path of their own: use flow.filenames, or flow.keys with shards",
    "filenames": "images in arrays have no file names: use flow.index_array",
    "directory": "the images are not in a folder",
    "target_size": "use flow.image_shape",
    "color_mode": "use flow.image_shape, which has the number of channels",
    "class_mode": "see flow.y for what comes with the images",
    "interpolation": "the images are not resized",
    "keep_aspect_ratio": "the images are not resized",
    "classes": "the samples have no classes: use flow.labels or flow.y, if there are any",
    "class_indices": "the samples have no classes: use flow.labels or flow.y, if there are any",
    "num_classes": "the samples have no classes: use flow.labels or flow.y, if there are any",
    "labels": "the samples have no labels in this class_mode; those of arrays are flow.y",
    "sample_weight": "the weights of shards are read with the batches, which have them as third member",
    "class_weight": 'the dataset has it: shardkit.dataset("shards/train").class_weight()',
    "class_counts": 'the dataset has them: shardkit.dataset("shards/train").class_counts',
    "split": _SPLIT,
    "get_classes": "use flow.classes",
    "set_processing_attrs": "give these arguments to the method that makes the flow",
    "image_data_generator": "only flows of an ImageDataGenerator have one",
}  # fmt: skip


def absent(of: object, name: str) -> AttributeError:
    """The error for an attribute that a flow does not have."""
    return no_attribute(of, name, dir(type(of)), ABSENT)
