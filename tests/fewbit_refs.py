"""Weighted L2 errors of the best tables, found by other code: 16-point Gauss-Legendre per 0.01, exact dynamic programs.

weight: {functions: {scheme: errors at 1, 2, 3, 4 bits}}. Functions that share a row have derivatives that are equal up
to sign, mirror image or a constant. "both" stands for interval and value where they agree.
"""

ERRORS = {
    "uniform": {
        "gelu": {
            "interval": (1.4105e-1, 4.0563e-2, 1.1898e-2, 3.1396e-3),
            "value": (1.4105e-1, 4.0563e-2, 8.094e-3, 2.117e-3),
        },
        "silu": {
            "interval": (2.1498e-1, 4.7849e-2, 1.7018e-2, 4.464e-3),
            "value": (2.1498e-1, 4.7849e-2, 1.2217e-2, 3.1635e-3),
        },
        "tanh tanhshrink": {
            "interval": (1.0115, 1.1357e-1, 2.5887e-2, 6.477e-3),
            "value": (1.584e-1, 3.191e-2, 7.264e-3, 1.739e-3),
        },
        "sigmoid": {
            "interval": (9.650e-2, 1.3014e-2, 3.077e-3, 7.835e-4),
            "value": (1.807e-2, 3.783e-3, 8.779e-4, 2.124e-4),
        },
        "selu": {
            "interval": (2.5535e-1, 1.0101e-1, 1.8380e-2, 3.909e-3),
            "value": (2.5535e-1, 6.604e-2, 1.4146e-2, 3.434e-3),
        },
        "elu celu": {"both": (1.6216e-1, 2.5111e-2, 5.1703e-3, 1.1841e-3)},
        "softplus log_sigmoid": {"both": (2.9022e-1, 5.4050e-2, 1.2117e-2, 2.8956e-3)},
        "mish": {
            "interval": (1.6882e-1, 3.9981e-2, 1.3586e-2, 3.603e-3),
            "value": (1.6882e-1, 3.9981e-2, 9.783e-3, 2.464e-3),
        },
        "softsign": {
            "interval": (4.5024e-1, 9.401e-2, 2.580e-2, 7.010e-3),
            "value": (1.2522e-1, 3.130e-2, 7.826e-3, 1.957e-3),
        },
        "hardswish": {
            "interval": (0.5, 2.5203e-1, 5.5556e-2, 1.0204e-2),
            "value": (0.5, 1.9179e-1, 3.4458e-2, 8.000e-3),
        },
    },
    "normal": {
        "gelu": {
            "interval": (3.8443e-2, 8.0011e-3, 1.9075e-3, 5.8876e-4),
            "value": (3.8443e-2, 8.0011e-3, 1.9020e-3, 4.6210e-4),
        },
        "silu": {"both": (3.2064e-2, 7.8953e-3, 1.9365e-3, 4.7524e-4)},
        "tanh tanhshrink": {
            "interval": (6.8404e-2, 1.5371e-2, 4.070e-3, 1.0853e-3),
            "value": (2.1059e-2, 4.967e-3, 1.2131e-3, 3.005e-4),
        },
        "sigmoid": {
            "interval": (1.4649e-3, 4.280e-4, 1.248e-4, 3.477e-5),
            "value": (5.779e-4, 1.511e-4, 3.877e-5, 9.84e-6),
        },
        "selu": {
            "interval": (3.5320e-2, 1.1990e-2, 2.306e-3, 5.140e-4),
            "value": (3.5320e-2, 7.047e-3, 1.782e-3, 4.528e-4),
        },
        "elu celu": {"both": (1.4096e-2, 2.8599e-3, 6.506e-4, 1.558e-4)},
        "softplus log_sigmoid": {"both": (1.2804e-2, 3.5767e-3, 9.583e-4, 2.496e-4)},
        "mish": {
            "interval": (3.4041e-2, 7.6753e-3, 1.8066e-3, 4.5170e-4),
            "value": (3.4041e-2, 7.6753e-3, 1.8066e-3, 4.4153e-4),
        },
    },
}


def cases():
    """(function, weight, scheme, bits, reference error)."""
    for weight, rows in ERRORS.items():
        for names, schemes in rows.items():
            for scheme, errors in schemes.items():
                for name in names.split():
                    for one in ("interval", "value") if scheme == "both" else (scheme,):
                        for bits, error in enumerate(errors, 1):
                            yield name, weight, one, bits, error
