"""The command line: a table of typed functions, imported one at a time.

A command is `"module:function"`; a dict holds sub-commands. Functions are imported only when they are called, so
`excite --help` stays fast however heavy a command is. `HELP` has one line per command (`"detect train"` for a
sub-command).
"""

Table = dict[str, "str | dict[str, str]"]

COMMANDS: Table = {
    "train": "excite.cli.train:train",
    "test": "excite.cli.test:check",
    "predict": "excite.cli.predict:predict",
    "profile": "excite.cli.profile:profile",
    "tables": "excite.cli.tables:tables",
    "bench": "excite.cli.bench:bench",
    "plan": "excite.cli.plan:plan",
    "compare": "excite.cli.compare:compare",
    "export": "excite.cli.export:export",
    "import": "excite.cli.import_:import_",
    "push": "excite.cli.push:push",
    "detect": {
        "train": "excite.cli.detect_train:train",
        "test": "excite.cli.detect_test:check",
        "predict": "excite.cli.detect_predict:predict",
    },
    "explain": "excite.cli.explain:explain",
    "robustness": "excite.cli.robustness:robustness",
    "demo": "excite.cli.demo:demo",
    "shards": "excite.cli.shards:shards",
    "list": "excite.cli.list:list_",
    "show": "excite.cli.show:show",
    "env": "excite.cli.env:env",
    "completion": "excite.cli.completion:completion",
}

HELP: dict[str, str] = {
    "train": "train a classifier (without arguments: eca_resnet20 on digits)",
    "test": "top-1, top-5, per-class table and confusion matrix of a checkpoint",
    "predict": "the most probable classes of images, with a checkpoint",
    "profile": "parameters, multiply-accumulates by convention, activations and memory of networks",
    "tables": "the papers' tables: published beside computed, with a verdict for each cell",
    "bench": "latency, throughput, training step and memory, measured in turn; or an input pipeline",
    "plan": "the time of an epoch on 8, 64, 512 GPUs, and what it waits for",
    "compare": "several methods, one recipe, several seeds: one table and one page",
    "export": "a network as ONNX, OpenVINO or torch.export, checked before it is written",
    "import": "a checkpoint of a paper's repository, timm or torchvision as a network of ours",
    "push": "a network on the Hugging Face hub: weights, page, and what timm reads",
    "detect": "detection and instance segmentation",
    "detect train": "train a detector (without arguments: Faster R-CNN on drawn shapes)",
    "detect test": "AP of boxes and masks, per category, of a checkpoint or a results file",
    "detect predict": "draw what a detector finds in images",
    "explain": "Grad-CAM, channel scales, weights and learned kernels of one or several checkpoints",
    "robustness": "accuracy under 15 corruptions at 5 severities, and probes",
    "demo": "a page to play with: what networks see, and what their attention does to it",
    "shards": "any data as WebDataset shards: tar files with a manifest, written in parallel",
    "list": "methods, models and recipes",
    "show": "what a method computes, its paper, its place, its cost, its options, its picture",
    "env": "versions and hardware, for a bug report",
    "completion": "a script for the shell that completes commands and options",
}
