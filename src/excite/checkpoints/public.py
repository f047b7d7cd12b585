"""The public files that are known: a table of text from the authors' pages. Nothing is downloaded."""

from typing import NamedTuple


class PublicFile(NamedTuple):
    """A file that authors publish.

    name: what they call it; network: what an import makes of it; scores: ImageNet top-1 and top-5 in percent as they
    publish them ("" where they give none); place: where they put it; sha256: its first digits where they are known.
    """

    name: str
    network: str
    scores: str
    place: str
    sha256: str = ""

    @property
    def command(self) -> str:
        """The line that imports the file."""
        return f"excite import {self.name} -o {self.network}.safetensors"


_DRIVE = "https://drive.google.com/open?id="
_FCA = "https://github.com/cfzd/FcaNet/releases/download/v1.0/"
_TORCH = "https://download.pytorch.org/models/"
_BAIDU = "https://pan.baidu.com/s/"

PUBLIC: tuple[PublicFile, ...] = (
    # BangguWu/ECANet, README; the digits are the kernel sizes.
    PublicFile("eca_resnet18_k3577", "eca_resnet18", "70.92 89.93", _DRIVE + "1LMRFRTyzVifGBi2MUpTuYEWW44S8mwyl"),
    PublicFile("eca_resnet34_k3357", "eca_resnet34", "74.21 91.83", _DRIVE + "15LV5Jkea3GPzvLP5__H7Gg88oNQUxBDE"),
    PublicFile("eca_resnet50_k3557", "eca_resnet50", "77.42 93.62", _DRIVE + "1670rce333c_lyMWFzBlNZoVUvtxbCF_U"),
    PublicFile("eca_resnet101_k3357", "eca_resnet101", "78.65 94.34", _DRIVE + "1b5FQ8yDFnZ_UhvWT9txmjI_LjbKkgnvC"),
    PublicFile("eca_resnet152_k3357", "eca_resnet152", "78.92 94.55", _DRIVE + "1_bYnaOg9ptsILC_iC7uQ5Izv-u2rjYG5"),
    PublicFile("eca_mobilenetv2_k13", "eca_mobilenet_v2", "72.56 90.81", _DRIVE + "1FxzeXPg1SJQZzVVH4HRjMeq_SVMfidUm"),
    # cfzd/FcaNet, README (evaluation results of the released files) and hubconf.py.
    PublicFile("fca34.pth", "fca_resnet34", "75.02", _FCA + "fca34.pth"),
    PublicFile("fca50.pth", "fca_resnet50", "78.57", _FCA + "fca50.pth"),
    PublicFile("fca101.pth", "fca_resnet101", "79.63", _FCA + "fca101.pth"),
    PublicFile("fca152.pth", "fca_resnet152", "80.02", _FCA + "fca152.pth"),
    # wofmanaf/SA-Net, README (extraction codes 474p and 6nxm).
    PublicFile("sa_resnet50.pth.tar", "sa_resnet50", "77.88 93.89", _BAIDU + "1-TEXeMjprUDyx013l3vZIQ"),
    PublicFile("sa_resnet101.pth.tar", "sa_resnet101", "78.95", _BAIDU + "16L0enJxKMd9LJ8B4dbGmtw"),
    # Jongchan/attention-module, README.
    PublicFile(
        "RESNET50_CBAM_new_name_wrap.pth",
        "cbam_resnet50",
        "77.62 93.95",
        "https://www.dropbox.com/s/bt6zty02h9ibufi/RESNET50_CBAM_new_name_wrap.pth",
    ),
    PublicFile(
        "RESNET50_IMAGENET_BAM_best.pth.tar",
        "bam_resnet50",
        "76.86 93.42",
        "https://www.dropbox.com/s/esw0m8e3cjg7ex4/RESNET50_IMAGENET_BAM_best.pth.tar",
    ),
    # moskomule/senet.pytorch, README.
    PublicFile(
        "seresnet50-f6e7c9de8bf52b5.pkl",
        "se_resnet50",
        "77.06",
        "https://www.dropbox.com/s/xpq8ne7rwa4kg4c/seresnet50-f6e7c9de8bf52b5.pkl",
    ),
    # torchvision, weights IMAGENET1K_V1: the digits in a name begin the file's sha256.
    PublicFile("resnet18-f37072fd.pth", "resnet18", "69.76 89.08", _TORCH + "resnet18-f37072fd.pth", "f37072fd"),
    PublicFile("resnet34-b627a593.pth", "resnet34", "73.31 91.42", _TORCH + "resnet34-b627a593.pth", "b627a593"),
    PublicFile("resnet50-0676ba61.pth", "resnet50", "76.13 92.86", _TORCH + "resnet50-0676ba61.pth", "0676ba61"),
    PublicFile("resnet101-63fe2227.pth", "resnet101", "77.37 93.55", _TORCH + "resnet101-63fe2227.pth", "63fe2227"),
    PublicFile("resnet152-394f9c45.pth", "resnet152", "78.31 94.05", _TORCH + "resnet152-394f9c45.pth", "394f9c45"),
    PublicFile(
        "mobilenet_v2-b0353104.pth", "mobilenet_v2", "71.88 90.29", _TORCH + "mobilenet_v2-b0353104.pth", "b0353104"
    ),
    # timm: model.safetensors of the repository; its own pages list the scores.
    *(
        PublicFile(f"{name}.safetensors", network, "", f"https://huggingface.co/timm/{name}")
        for name, network in (
            ("seresnet50.a1_in1k", "se_resnet50"),
            ("seresnet50.ra2_in1k", "se_resnet50"),
            ("seresnet152d.ra2_in1k", "se_resnet152"),
            ("ecaresnet50d.miil_in1k", "eca_resnet50"),
            ("ecaresnet101d.miil_in1k", "eca_resnet101"),
            ("ecaresnetlight.miil_in1k", "eca_resnet50"),
        )
    ),
)
