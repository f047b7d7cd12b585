"""Our networks beside timm's of the same kind: inference at batch 1 and a training step."""

from common import measure, parser, save

PAIRS = ["timm/resnet50", "resnet50", "timm/seresnet50", "se_resnet50", "timm/ecaresnet50d", "eca_resnet50"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=PAIRS)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--side", type=int, default=224)
    options.add_argument("--tasks", nargs="+", default=["latency", "training"])
    args = options.parse_args()
    report, given = measure(args, args.models, tasks=args.tasks, batch_sizes=[args.batch_size], side=args.side)
    save(args, report, given, "against-timm")


if __name__ == "__main__":
    main()
