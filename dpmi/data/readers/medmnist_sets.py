"""Sets of MedMNIST v2 with flat images and one label each (Yang et al. 2023).

The medmnist package has the same table; but whoever imports it makes a folder in the user's home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpmi.data.readers.aptos import CLASSES as RETINOPATHY_GRADES


@dataclass(frozen=True)
class MedmnistSet:
    """A set; classes in the order of its labels."""

    channels: Literal[1, 3]
    classes: tuple[str, ...]
    graded: bool = False


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

MEDMNIST = {
    "pathmnist": MedmnistSet(3, (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    )),
    "dermamnist": MedmnistSet(3, (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    )),
    "octmnist": MedmnistSet(1, (
        "choroidal neovascularization", "diabetic macular edema", "drusen", "normal",
    )),
    "breastmnist": MedmnistSet(1, (
        "malignant", "normal, benign",
    )),
    "bloodmnist": MedmnistSet(3, (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte",
        "monocyte", "neutrophil", "platelet",
    )),
    "tissuemnist": MedmnistSet(1, (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
        "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
        "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    )),
    "organamnist": MedmnistSet(1, _ORGANS),
    "organcmnist": MedmnistSet(1, _ORGANS),
    "organsmnist": MedmnistSet(1, _ORGANS),
    "pneumoniamnist": MedmnistSet(1, (
        "normal", "pneumonia",
    )),
    "retinamnist": MedmnistSet(3, RETINOPATHY_GRADES, graded=True),
}  # fmt: skip
