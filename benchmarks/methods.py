"""The rows of EMCA's FPS table on this machine: methods on ResNet-18, 34 and 50, at batch 1 and at a large batch."""

from common import measure, parser, save

METHODS = ("", "se", "emca_se", "eca", "emca_eca", "srm", "emca_srm", "fca", "cbam", "bam")
MORE_ON_50 = ("epsanet50", "sa_resnet50")
KERNELS = {18: "3,5,7,7", 34: "3,3,5,7", 50: "3,5,5,7"}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--depths", type=int, nargs="+", default=[18, 34, 50], choices=sorted(KERNELS))
    options.add_argument("--methods", nargs="+", default=list(METHODS), help="'' is the plain network")
    options.add_argument("--large-batch", type=int, default=16)
    args = options.parse_args()
    for depth in args.depths:
        models = [f"{method}_resnet{depth}".lstrip("_") for method in args.methods]
        models += MORE_ON_50 if depth == 50 else ()
        own: dict[str, dict] = {}
        for model in models:
            if model == f"eca_resnet{depth}":
                own[model] = {"kernel_size": KERNELS[depth]}
            elif model.startswith("emca_eca"):
                own[model] = {"form": "released", "stages": "all", "blocks": 1}
            elif model.startswith("emca_"):
                own[model] = {"where": "branch"}
        report, given = measure(
            args, models, tasks=("latency", "throughput"), batch_sizes=(args.large_batch,), options=own
        )
        save(args, report, given, f"methods-resnet{depth}", records=True)


if __name__ == "__main__":
    main()
