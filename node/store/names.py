"""What a node is called until its user names it: a bird, drawn from its identity, so that it stays the same."""

_BIRDS = (
    "accentor avocet babbler barbet bittern blackbird bluebird bluethroat brambling bulbul bullfinch bunting bustard "
    "buzzard chaffinch chiffchaff chough coot cormorant corncrake crake crane crossbill cuckoo curlew dipper diver dotterel "
    "dove duck dunlin dunnock egret eider falcon fieldfare finch firecrest flamingo flycatcher fulmar gadwall gannet "
    "garganey godwit goldcrest goldfinch goosander goose goshawk grebe greenfinch greenshank grouse guillemot gull harrier "
    "hawfinch heron hobby hoopoe ibis jackdaw jay kestrel kingfisher kite kittiwake knot lapwing lark linnet magpie "
    "mallard martin merganser merlin moorhen nightjar nutcracker nuthatch oriole osprey ouzel owl partridge pelican petrel "
    "pheasant pigeon pintail pipit plover pochard ptarmigan puffin quail rail raven razorbill redpoll redshank redstart "
    "redwing robin roller rook ruff sanderling sandpiper scaup scoter serin shearwater shelduck shoveler shrike siskin skua "
    "skylark smew snipe sparrow spoonbill starling stilt stint stonechat stork swallow swan swift teal tern thrush tit "
    "treecreeper turnstone twite wagtail warbler waxwing wheatear whimbrel whinchat whitethroat wigeon woodcock woodlark "
    "wren wryneck yellowhammer"
)
BIRDS = tuple(_BIRDS.split())


def bird_name(node: bytes) -> str:
    """The bird of a node id. A key's bytes are as good as random, so each bird is about as likely."""
    return BIRDS[int.from_bytes(node[-4:], "big") % len(BIRDS)]
