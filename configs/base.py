"""The whole config tree, with the official recipe's numbers (arXiv 2408.03885 and its code).

Not an experiment of its own: other configs start from it. Every key can be changed on the command
line, e.g. `--config.optimizer.learning_rate=1e-4`; unknown keys are errors.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Build the tree."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, dropout, order and crops
    # What training starts from: another run's workdir (its selected weights), or an official
    # checkpoint (.pth, .pt, .safetensors); "" leaves it to `model.pretrained`.
    config.init_from = ""
    # "strict": a validation part, cut from the training references, selects the epoch, the test
    # part is touched once, and labels are turned so that higher is better.
    # "official": the test part selects the epoch, and labels are as published.
    config.protocol = "strict"

    config.model = ConfigDict()
    config.model.name = "glpi_s16"  # glpi_s16, glpi_b16, glpi_ti16, glpi_small, glpi_demo
    config.model.dropout = 0.5  # in every CWSA and in the head
    config.model.dtype = "float32"  # compute: float32 or bfloat16
    config.model.param_dtype = "float32"  # of the parameters and what the optimizer keeps of them
    # Of the ViT: matmul (spelled out), xla or cudnn (NVIDIA GPUs with bfloat16). Speed alone.
    config.model.attention = "matmul"
    # Platforms (cpu, gpu, tpu) that take XLA's own convolutions, max-pool and gradient of BatchNorm
    # instead of forms that are faster on the CPU. Speed, and the last digits.
    config.model.plain_operators = ()
    # Parts of the ResNet (stem, layer1, layer2, layer3) whose BatchNorm keeps its running
    # statistics while training. Empty in the official recipe, also for the frozen parts.
    config.model.batch_norm_inference_stages = ()
    # Backbones to start from, each "download" (the paper's, once, into a cache), a file, or ""
    # (random: then nothing of it should be frozen by the rules below). `init_from` replaces both.
    config.model.pretrained = ConfigDict()
    config.model.pretrained.vit = "download"  # or timm's .safetensors or .pth, DINOv2, augreg .npz
    config.model.pretrained.resnet = "download"  # or torchvision's .pth or timm's .safetensors
    # Multiplies the tokens of a pretrained ViT, whose blocks then compute the same. DINOv2's early
    # tokens are about 10 times smaller than what the integration adds to them.
    config.model.pretrained.vit_gain = 1.0

    config.data = ConfigDict()
    config.data.database = "kadid10k"  # the kind of source, see docs/data.md
    config.data.root = ""  # folder of the database
    config.data.labels = ""  # label file, for the kinds pyiqa and liqe; saqt: or folder of tables
    config.data.skip_bad = False  # leave out rows that cannot be used, and list them
    # The training labels are label_scale · label + label_shift; the scale is above 0. Scores are
    # mapped back to the units of the labels.
    config.data.label_scale = 1.0
    config.data.label_shift = 0.0
    # Preprocessing, before crops are cut: in training, evaluation, and scoring with the weights.
    # () keeps the size; (height, width) is the exact size, whatever the aspect; (side,) reduces
    # larger images to a shorter side of so many pixels and keeps the aspect.
    config.data.resize = ()
    config.data.resize_method = "bilinear"  # or "bicubic"
    config.data.apply_orientation = False  # turn as EXIF says; the official loader does not
    # The kind saqt distorts photographs as it reads them.
    config.data.distortion_seed = 0  # of the random distortions
    config.data.redraw_distortions = False  # anew in every epoch after the first
    config.data.dncnn = ""  # weights of a DnCNN, which denoises for type 15; "": total variation
    config.data.horizontal_flip = 0.5  # probability
    config.data.vertical_flip = 0.5  # probability
    config.data.threads = 4  # that decode and crop, in each worker if there are workers
    config.data.workers = 0  # processes that prepare batches; 0 leaves it to threads alone
    config.data.prefetch = 8  # batches ready ahead of the step
    # Memory of each process for decoded images, of the kind saqt for photographs; 0 decodes always.
    config.data.cache_bytes = 0

    # Databases of a cross-dataset run by name, each with a section like `data` (configs/cross.py);
    # the run then trains on all of the source.
    config.targets = ConfigDict()

    config.split = ConfigDict()
    # "ratio": by reference, shuffled with the seed round · 12345; "published": the split `name`
    # that came with the database; "file": the split file `name`; "lists": the folder `name` with
    # a list of images for each part, such as LIQE's.
    config.split.kind = "ratio"
    config.split.name = ""
    config.split.round = 1
    config.split.train_fraction = 0.8  # of the references (synthetic) or images (authentic)
    config.split.validation_fraction = 0.2  # of the training references; strict protocol

    config.optimizer = ConfigDict()
    # "adam_l2", the official one: Adam with the weight decay added to the gradient; or a function
    # of optax, such as "adamw", "sgd" or "lion". Learning rate, schedule and rules hold for all.
    config.optimizer.name = "adam_l2"
    # Keyword arguments of that function, e.g. config.optimizer.arguments.weight_decay = 0.01; what
    # is left out is optax's default. adam_l2 takes the four numbers below instead.
    config.optimizer.arguments = ConfigDict()
    config.optimizer.learning_rate = 1e-5
    config.optimizer.cosine_half_period = 30  # T_max, in steps: the rate swings with period 60
    config.optimizer.warmup_steps = 0
    config.optimizer.beta1 = 0.9  # of adam_l2 alone, as the next three
    config.optimizer.beta2 = 0.999
    config.optimizer.epsilon = 1e-8
    config.optimizer.weight_decay = 1e-5  # L2, added to the gradient
    # (regular expression over the whole parameter path, multiplier of the learning rate or None
    # for frozen); the first match holds.
    config.optimizer.rules = (
        (r"vgfe/patch_embed/.*", None),
        (r"vgfe/blocks_[0-4]/.*", None),
        (r"clfe/backbone/(conv1|bn1|layer[12]_\d+)/.*", None),
        (r".*", 1.0),
    )

    config.train = ConfigDict()
    # "l1" (mean absolute error), "mse" (mean squared error), "huber", or "plcc" (1 − Pearson's
    # correlation over the batch, which leaves the scale of the scores open).
    config.train.loss = "l1"
    config.train.huber_delta = 1.0  # of huber: errors beyond it count linearly
    config.train.batch_size = 32  # global, over all devices and hosts
    # Parts that a batch is computed in, one after the other, to need less memory; BatchNorm and
    # the result are those of the whole batch.
    config.train.accumulation = 1
    # What is computed again for the gradient instead of being held: "none", "dots" (all but
    # products without a batch dimension) or "full". Of the ViT, the CNN and the integration.
    config.train.remat = ConfigDict()
    config.train.remat.vgfe = "none"
    config.train.remat.clfe = "none"
    config.train.remat.integration = "none"
    config.train.epochs = 300  # an epoch is one random crop of every training image
    config.train.log_every_steps = 50
    config.train.checkpoint_every_steps = 500

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 1
    # Which epoch is kept: the "best" by the protocol's SROCC, or the "last".
    config.evaluation.select = "best"
    config.evaluation.crops = 25  # a crop's scores are averaged to the image's
    config.evaluation.placement = "random"  # "random", seeded by file name, or "grid"
    config.evaluation.batch_size = 128  # crops at a time, on all devices together
    config.evaluation.bootstrap_resamples = 1000  # for the confidence intervals; 0 leaves them out
    config.evaluation.confidence = 0.95  # of the intervals

    # Devices in groups; the three numbers multiply to how many are used, and one of them may be -1,
    # which is what the others leave. They and the next key change speed and memory, not results.
    config.mesh = ConfigDict()
    config.mesh.data = -1  # that share a batch, each with all parameters
    config.mesh.fsdp = 1  # that share a batch and split the parameters and their optimizer state
    config.mesh.round = 1  # that train rounds of `glpi benchmark` of their own, side by side
    # (regular expression over the whole parameter path; the dimension that `fsdp` splits, "largest"
    # for the largest that splits evenly, or None for a whole parameter); the first match holds.
    config.mesh.fsdp_rules = ((r".*/(bias|scale)", None), (r".*", "largest"))
    return config
