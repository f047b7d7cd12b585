"""How the cost of attention grows with image size and with batch size."""

from common import measure, parser, save


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=["resnet18", "se_resnet18", "eca_resnet18", "srm_resnet18"])
    options.add_argument("--sides", type=int, nargs="+", default=[64, 128, 224, 320])
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    args = options.parse_args()
    for side in args.sides:
        report, given = measure(args, args.models, side=side)
        save(args, report, given, f"growth-side{side}")
    report, given = measure(args, args.models, tasks=("throughput",), batch_sizes=args.batch_sizes, side=args.sides[0])
    save(args, report, given, f"growth-batch-side{args.sides[0]}")


if __name__ == "__main__":
    main()
